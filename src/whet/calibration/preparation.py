"""What methods and runtimes look at: a sample of the training data, and what was held out of it, encoded."""

__all__ = []
