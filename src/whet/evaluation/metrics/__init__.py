"""The metrics of a benchmark; one module per kind of measurement."""
