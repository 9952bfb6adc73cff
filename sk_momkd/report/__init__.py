"""Pictures of results and models, and a page that holds them all."""
