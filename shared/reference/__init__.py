"""The independent truth: float64 NumPy, written from the formulas, never from a framework."""
