"""Tasks: labelled examples, their splits, files and tokenization, and known data sets."""
