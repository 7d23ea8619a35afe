"""Mathematics on tensors, without models."""
