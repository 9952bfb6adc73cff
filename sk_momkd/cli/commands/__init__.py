"""One file per command; each calls the functions of the package that users of Python call."""
