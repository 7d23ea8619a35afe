"""Training and distillation of models."""
