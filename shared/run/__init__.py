"""A training run without the training."""
