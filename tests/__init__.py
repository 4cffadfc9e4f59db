"""Tests by room; `tests.apparatus` holds what tries the tests themselves."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The repository."""
