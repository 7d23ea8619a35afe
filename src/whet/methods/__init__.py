"""One module a method."""
