"""Factorization: two thin layers of low rank replace a dense layer."""
