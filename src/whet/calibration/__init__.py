"""What methods look at in a model before they change it: moments, gradients, importance."""
