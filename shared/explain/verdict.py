"""What is found out about an implementation: the first stage that parts, and why."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from shared.explain.distance import Parting
from shared.explain.fixes import Fix
from shared.explain.traps import fix_of, title_of
from shared.reference.comparison import ulp_error

VerdictName = Literal["rounding", "known trap", "unexplained"]


@dataclass(frozen=True)
class Stage:
    """One stage of one probe: its largest difference, or why it was not looked at."""

    name: str
    probe: str
    difference: float | None
    array: str
    reason: str = ""
    agrees: bool = True


@dataclass(frozen=True)
class Place:
    """The first array that parts, its worst element, and by how much it is off."""

    stage: str
    probe: str
    array: str
    relative: float
    largest: float
    ulp: float
    element: tuple[int, ...]
    received: float
    expected: float

    @classmethod
    def of(cls, parting: Parting, dtype: str) -> Place:
        """Return the place of a parting."""
        actual, wanted = parting.received, parting.expected
        if actual.shape != wanted.shape:
            shapes = (float("nan"), float("nan"))
            return cls(*_names(parting), parting.relative, *shapes, (), *shapes)
        with np.errstate(invalid="ignore"):
            off = np.where(actual == wanted, 0.0, np.abs(actual - wanted))
        off = np.where(np.isnan(off), np.inf, off)
        element = tuple(int(i) for i in np.unravel_index(np.argmax(off), off.shape))
        received, expected = float(actual[element]), float(wanted[element])
        ulp = ulp_error(received, _exact(expected), dtype)
        return cls(
            *_names(parting), parting.relative, float(off.max()), ulp, element, received, expected
        )


def _names(parting: Parting) -> tuple[str, str, str]:
    return parting.stage, parting.probe, parting.name


def _exact(number: float) -> Any:
    return Fraction(number) if np.isfinite(number) else number


@dataclass(frozen=True)
class Trap:
    """A mistake with its name: the fields of `Conventions`, what it costs, and how to mend it.

    `cost` is the largest relative difference of any array that it makes alone, at `cost_array`.
    """

    change: dict[str, Any]
    cost: float
    cost_array: str

    @property
    def title(self) -> str:
        """The mistake in words."""
        return title_of(self.change)

    @property
    def fix(self) -> Fix:
        """Row of docs/porting.md and what to write instead."""
        return fix_of(self.change)


@dataclass(frozen=True)
class Explanation:
    """The verdict on one implementation.

    `first` is the first array that parts from the reference, None where none does. `alternatives`
    are other explanations that these probes cannot tell from `traps`. `notes` are facts found on
    the way, such as float32 inside a float64 run.
    """

    implementation: str
    system: str
    dtype: str
    verdict: VerdictName
    stages: tuple[Stage, ...]
    bound: float
    first: Place | None = None
    traps: tuple[Trap, ...] = ()
    alternatives: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tried: int = 0
    seconds: float = 0.0
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of `Conventions` that the implementation has otherwise."""
        return {name: value for trap in self.traps for name, value in trap.change.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON data."""
        data = dataclasses.asdict(self)
        for trap, entry in zip(self.traps, data["traps"], strict=True):
            entry |= {"title": trap.title, **dataclasses.asdict(trap.fix)}
        return data
