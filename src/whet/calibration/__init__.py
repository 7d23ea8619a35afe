"""Statistics of a model on calibration data: moments, gradients, importance, sensitivity."""
