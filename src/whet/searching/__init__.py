"""The search for the best model within a budget of time and quality."""
