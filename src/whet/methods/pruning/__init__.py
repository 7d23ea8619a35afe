"""Pruning: weights are set to zero, or heads, neurons and whole parts are removed."""
