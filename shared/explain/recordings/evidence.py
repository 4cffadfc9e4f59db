"""What the traps are looked for in: each side's numbers by themselves, and what explains them."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.explain.catalogue import FIXES
from shared.explain.recordings.matching import Key
from shared.explain.recordings.pairs import Pair
from shared.reference.comparison import relative_l2
from shared.reference.layers import Array

Side = Mapping[Key, Array]
"""One side's numbers, float64 in the first's axes."""

Explanation = tuple[tuple[str, Any], ...]
"""A value for each field; fields that begin with _ are no conventions but have to be the same."""

Ways = Iterable[tuple[Explanation, Array, Array]]
"""Every way in which one side may have computed something of a layer, the numbers that the
reference gets in this way, and those that are recorded."""


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


class Evidence:
    """The paired numbers of both sides, and which of them disagree."""

    def __init__(self, pairs: Mapping[Key, Pair]) -> None:
        self.pairs = pairs
        self.disagreeing = {key for key, pair in pairs.items() if not pair.agrees}
        self.sides: tuple[Side, Side] = (
            {k: np.asarray(p.one.array, np.float64) for k, p in pairs.items()},
            {k: np.asarray(p.array, np.float64) for k, p in pairs.items() if p.array is not None},
        )

    def explained(
        self, operation: Callable[[Side, int, str], Ways], *tensors: str
    ) -> Iterator[tuple[str, set[Explanation], set[Explanation]]]:
        """Yield every layer one of whose `tensors` disagrees, and what explains it on each side."""
        places = {
            (step, name.rsplit("/", 1)[0]): None
            for step, name in self.pairs
            if (step, name) in self.disagreeing and name.endswith(tuple(f"/{t}" for t in tensors))
        }
        for step, layer in places:
            keys = [(step, f"{layer}/{tensor}") for tensor in tensors]
            bound = next(self.pairs[key].bound for key in keys if key in self.pairs)
            first, second = (
                {e for e, made, recorded in ways if relative_l2(made, recorded) <= bound}
                for ways in (operation(side, step, layer) for side in self.sides)
            )
            yield layer, first, second


def multiple(of: Array, array: Array) -> float:
    """Return the factor that brings one array nearest to another; nan where it is 0."""
    return float(np.vdot(of, array) / np.vdot(of, of)) if of.any() else math.nan


def named_trap(
    field: str, first: Any, second: Any, where: tuple[str, ...], certain: bool = True
) -> Trap:
    """Return a trap; what has no field of Conventions is named in the two values."""
    if field not in FIXES:
        return Trap(None, None, f"{field} {first}", f"{field} {second}", where, certain)
    return Trap(field, FIXES[field].row, str(first), str(second), where, certain)


def fewest_differences(
    first: set[Explanation], second: set[Explanation], where: tuple[str, ...]
) -> list[Trap]:
    """Return the smallest change of fields that turns an explanation of one side into the other's.

    Nothing where a side is not explained, or one explanation does for both. Where several changes
    are as small, each is a trap that is not certain.
    """
    changes = {
        tuple((x[0], x[1], y[1]) for x, y in zip(a, b, strict=True) if x != y)
        for a in first
        for b in second
    }
    fewest = min(map(len, changes), default=0)
    smallest = [
        change
        for change in sorted(changes, key=str)
        if len(change) == fewest and not any(field.startswith("_") for field, _, _ in change)
    ]
    certain = len(smallest) == 1
    return [named_trap(*values, where, certain) for change in smallest for values in change]


def merged(traps: Iterable[Trap]) -> tuple[Trap, ...]:
    """Return each trap once, with all its places; a doubtful one only where no other is sure."""
    found: dict[tuple[Any, ...], Trap] = {}
    for trap in traps:
        key = trap.field, trap.first, trap.second
        if key in found:
            earlier = found[key]
            where = tuple(dict.fromkeys(earlier.where + trap.where))
            trap = dataclasses.replace(trap, where=where, certain=earlier.certain or trap.certain)
        found[key] = trap
    settled = {name for trap in found.values() if trap.certain for name in trap.where}
    return tuple(t for t in found.values() if t.certain or not settled.issuperset(t.where))
