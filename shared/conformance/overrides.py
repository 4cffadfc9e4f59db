"""A downstream project's own word on cases: a declared divergence, or another bound."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.conformance.cases import Override, matching
from shared.files.documents import read_document
from shared.files.errors import InputError

_EXPECTED = (
    'expected a table by case id or pattern, each {"divergent": true, "reason": "…"} or '
    '{"bound": 1e-9, "reason": "…"}, with a finite bound of at least 0 and a reason that says why'
)
_LARGEST = sys.float_info.max


def load_overrides(path: Path, identifiers: Sequence[str]) -> dict[str, Override]:
    """Return the override of each case that has one, from a TOML or JSON file.

    Raises InputError, which names the file, for a file that cannot be read, an entry that is not
    one, a pattern that matches none of the ids, and two patterns that match the same.
    """
    document = read_document(path)
    try:
        if not isinstance(document, dict):
            raise ValueError(f"received a {type(document).__name__}; {_EXPECTED}")
        return _by_case([_override(*entry) for entry in document.items()], identifiers)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _override(pattern: str, entry: Any) -> Override:
    match entry:
        case {"divergent": True, "reason": str(reason), **rest} if reason.strip() and not rest:
            return Override(pattern, reason.strip(), None)
        case {"bound": int(bound) | float(bound), "reason": str(reason), **rest} if (
            reason.strip() and not rest and type(bound) is not bool and 0 <= bound <= _LARGEST
        ):
            return Override(pattern, reason.strip(), float(bound))
    raise ValueError(f"{pattern!r} holds {entry!r}; {_EXPECTED}")


def _by_case(overrides: list[Override], identifiers: Sequence[str]) -> dict[str, Override]:
    found: dict[str, Override] = {}
    for override in overrides:
        for name in matching(identifiers, override.pattern):
            if name in found:
                patterns = f"{found[name].pattern!r} and {override.pattern!r}"
                raise ValueError(f"{patterns} both match {name}; expected at most one per case")
            found[name] = override
    return found
