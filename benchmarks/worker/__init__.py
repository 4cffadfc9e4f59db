"""One measurement in a separate process."""
