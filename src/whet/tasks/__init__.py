"""Data: splits, files, tokenization, known data sets."""
