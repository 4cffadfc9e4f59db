"""What a benchmark measures, and in which order."""
