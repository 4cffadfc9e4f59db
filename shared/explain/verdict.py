"""What is found out about an implementation: the first stage that diverges, and why."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.explain.catalogue import FIXES, Change, Fix, title_of
from shared.explain.distance import Divergence

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
class Trap:
    """A mistake with its name: the fields of `Conventions`, what it costs, and how to fix it.

    `cost` is the largest relative difference of any array that it makes alone, at `cost_array`.
    """

    change: Change
    cost: float
    cost_array: str

    @property
    def title(self) -> str:
        """The mistake in words."""
        return title_of(self.change)

    @property
    def fix(self) -> Fix:
        """Row of docs/porting.md and what to write instead."""
        return FIXES[next(iter(self.change))]


@dataclass(frozen=True)
class Explanation:
    """The verdict on one implementation.

    `first` is the first array that differs from the reference, None where none does. `alternatives`
    are other explanations that these probes cannot distinguish from `traps`. `notes` are facts
    found on the way, such as float32 inside a float64 run.
    """

    implementation: str
    system: str
    dtype: str
    verdict: VerdictName
    stages: tuple[Stage, ...]
    bound: float
    first: Divergence | None = None
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
