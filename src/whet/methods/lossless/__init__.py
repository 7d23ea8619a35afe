"""Lossless methods: the same predictions from fewer matrix products."""
