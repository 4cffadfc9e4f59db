"""Framework-neutral half of the project: imports NumPy and no framework."""
