"""Clustering: the weights of a layer share a few distinct values."""
