"""Which texts of a data set hold others, as SST-2's sentences hold its phrases, word for word."""

__all__ = []
