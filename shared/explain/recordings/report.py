"""What is found out about two recordings, as data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pair:
    """Two recorded tensors that belong together, and how far they are apart.

    `arrangement` says how the second's axes were brought into the first's order. `worst` is the
    index of the largest absolute difference, in the first's axes. Numbers are nan where the shapes
    do not fit. `ulp` is that of the worst element, in units of the first's number.
    """

    step: int
    first: str
    second: str
    matched_by: str
    arrangement: str
    dtype: str
    bound: float
    relative_l2: float
    max_abs: float
    ulp: float
    worst: tuple[int, ...]
    worst_values: tuple[float, float]
    agrees: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Trap:
    """A convention on which the two recordings differ.

    `field` is that of `shared.spec.Conventions`, None where it has none; `anchor` the row of
    docs/porting.md. `certain` is False where another trap of the report explains the same numbers.
    """

    field: str | None
    anchor: str | None
    first: str
    second: str
    where: tuple[str, ...]
    certain: bool = True


@dataclass(frozen=True)
class RecordingReport:
    """What two recordings have in common and where they part.

    `parting` is the index in `pairs` of the first that differs, None where all agree. `unmatched`
    names what only one of them holds or what could not be matched without guessing.
    """

    paths: tuple[str, str]
    frameworks: tuple[str, str]
    pairs: tuple[Pair, ...]
    parting: int | None
    traps: tuple[Trap, ...]
    unmatched: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON data; nan and infinities become text."""
        plain = _plain(dataclasses.asdict(self))
        assert isinstance(plain, dict)
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
