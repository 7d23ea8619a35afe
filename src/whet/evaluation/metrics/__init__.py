"""One module a kind of measurement."""
