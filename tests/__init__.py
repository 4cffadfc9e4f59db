"""Tests by room; `tests.apparatus` holds what tries the tests themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
"""The repository."""


def exit_code(main: Callable[..., Any], *arguments: Any) -> Any:
    """Return the exit code of a command, also where its parser of options ends it."""
    try:
        return main(*arguments)
    except SystemExit as end:
        return end.code
