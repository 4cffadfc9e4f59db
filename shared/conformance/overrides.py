"""A downstream project's own word on cases: a declared divergence, or another bound."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.conformance.cases import matches
from shared.files.errors import one_line, printable

MAXIMUM_BYTES = 2**20
"""Largest file that is read; an entry has a hundred."""
MAXIMUM_PATTERN = 200
_EXPECTED = (
    'expected a table by case id or pattern, each {"divergent": true, "reason": "…"} or '
    '{"bound": 1e-9, "reason": "…"}'
)


@dataclass(frozen=True)
class Override:
    """What holds for the cases that a pattern matches; `bound` is None for a divergence."""

    pattern: str
    reason: str
    bound: float | None


def load_overrides(path: Path, identifiers: Iterable[str]) -> dict[str, Override]:
    """Return the override of each case that has one, from a TOML or JSON file.

    Raises ValueError, which names the file, for a file that cannot be read, an entry that is not
    one, a pattern that matches none of the ids, and two patterns that match the same.
    """
    shown = printable(path)
    try:
        overrides = [_override(*entry) for entry in _read(path).items()]
        return _by_case(overrides, list(identifiers))
    # RecursionError: nested too deep. OverflowError: a whole number beyond the floats.
    except (ValueError, RecursionError, OverflowError) as error:
        raise ValueError(one_line(f"{shown}: {error}")) from error
    except OSError as error:
        raise ValueError(f"{shown} cannot be read: {error.strerror}") from error


def _read(path: Path) -> Mapping[str, Any]:
    if path.exists() and not path.is_file():  # a pipe would be waited for without end
        raise ValueError("expected a file")
    if path.stat().st_size > MAXIMUM_BYTES:
        raise ValueError(f"{path.stat().st_size:,} bytes, expected at most {MAXIMUM_BYTES:,}")
    text = path.read_text("utf-8")
    if path.suffix not in (".toml", ".json"):
        raise ValueError(f"received a file named *{path.suffix}, expected .toml or .json")
    if max((line.count(".") for line in text.splitlines()), default=0) > MAXIMUM_PATTERN:
        # tomllib takes 80 seconds for a key of 20,000 parts.
        raise ValueError(f"a line has more than {MAXIMUM_PATTERN} dots")
    document = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    if not isinstance(document, dict):
        raise ValueError(f"received a {type(document).__name__}; {_EXPECTED}")
    return document


def _override(pattern: str, entry: Any) -> Override:
    if len(pattern) > MAXIMUM_PATTERN:  # fnmatch takes seconds for 3,000 brackets
        raise ValueError(f"expected a pattern of at most {MAXIMUM_PATTERN} characters")
    problem = f"{pattern!r} holds {entry!r}; {_EXPECTED}"
    if not isinstance(entry, dict) or not isinstance(entry.get("reason"), str):
        raise ValueError(problem)
    reason = entry["reason"].strip()
    if not reason:
        raise ValueError(f"{pattern!r} has an empty reason; say why it should hold")
    if entry.keys() == {"divergent", "reason"} and entry["divergent"] is True:
        return Override(pattern, reason, None)
    if entry.keys() != {"bound", "reason"} or type(entry["bound"]) not in (int, float):
        raise ValueError(problem)
    bound = float(entry["bound"])
    if not math.isfinite(bound) or bound < 0:
        raise ValueError(
            f"{pattern!r} has the bound {bound}; expected a finite number of at least 0"
        )
    return Override(pattern, reason, bound)


def _by_case(overrides: list[Override], identifiers: list[str]) -> dict[str, Override]:
    found: dict[str, Override] = {}
    for override in overrides:
        matched = [name for name in identifiers if matches(name, override.pattern)]
        if not matched:
            raise ValueError(
                f"{override.pattern!r} matches no case; expected an id or a pattern of one, "
                "--list prints them all"
            )
        for name in matched:
            if name in found:
                patterns = f"{found[name].pattern!r} and {override.pattern!r}"
                raise ValueError(f"{patterns} both match {name}; expected at most one per case")
            found[name] = override
    return found
