"""Time the implementations against one another: `python benchmarks/run.py --help`."""
