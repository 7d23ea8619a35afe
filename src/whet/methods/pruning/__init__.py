"""Pruning: weights that are set to zero, and stay so."""
