"""Recovery: the compressed model is trained to match the baseline again."""
