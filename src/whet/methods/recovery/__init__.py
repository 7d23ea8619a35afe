"""Recovery: train a compressed model to answer as its original did."""
