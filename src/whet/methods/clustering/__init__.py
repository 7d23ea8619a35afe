"""Clustering: weights of few distinct values."""
