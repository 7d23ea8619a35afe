"""Lossless: the same answers, in fewer products."""
