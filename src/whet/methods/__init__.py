"""Compression methods, one module each, in families; `base` finds them by name."""
