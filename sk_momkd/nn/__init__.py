"""Parts of models: layers, operations per bag, dropout, the memory."""
