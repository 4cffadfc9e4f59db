"""Faults planted in the real source of the three implementations, each with its true name.

`python -m tests.apparatus.planted` plants every one and compares it with the reference.
"""
