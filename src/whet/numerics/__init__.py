"""The mathematics of compression: functions from tensors to tensors that know nothing of models."""
