"""One module a kind of compressed layer."""
