"""What bag files look like on disk, one family of tools a file."""
