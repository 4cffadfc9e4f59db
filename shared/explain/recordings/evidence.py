"""What the traps are looked for in: each side's numbers by themselves, and what explains them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any

import numpy as np

from shared.explain.fixes import FIXES
from shared.explain.recordings.aligning import Aligned, Key
from shared.explain.recordings.report import Trap
from shared.reference.layers import Array
from shared.spec import Conventions

Side = Mapping[Key, Array]
"""One side's numbers, float64 in the first's axes."""

Explanation = tuple[tuple[str, Any], ...]
"""A value for each field; fields that begin with _ are no conventions but have to be the same."""

FIELDS = {field.name for field in dataclasses.fields(Conventions)}


class Evidence:
    """The paired numbers of both sides, and which of them disagree."""

    def __init__(self, by_name: Mapping[Key, Aligned], disagreeing: Set[Key]) -> None:
        self.by_name = by_name
        self.disagreeing = disagreeing
        self.sides: tuple[Side, Side] = (
            {k: np.asarray(a.first.array, np.float64) for k, a in by_name.items()},
            {k: np.asarray(a.array, np.float64) for k, a in by_name.items() if a.array is not None},
        )

    def with_suffix(self, *suffixes: str) -> Iterator[Key]:
        """Yield step and rest of the name of every disagreeing tensor that ends in one of these."""
        seen = set()
        for step, name in self.by_name:
            for suffix in suffixes:
                key = step, name.removesuffix(suffix)
                if name.endswith(suffix) and (step, name) in self.disagreeing and key not in seen:
                    seen.add(key)
                    yield key

    def bound(self, step: int, name: str) -> float:
        """Return the pair's bound, which is also that of an explanation."""
        return self.by_name[step, name].bound

    def explain(
        self,
        explain: Callable[[Side, int, str, float], set[Explanation]],
        step: int,
        layer: str,
        name: str,
    ) -> tuple[set[Explanation], set[Explanation]]:
        """Return what explains a layer on each side, within the bound of its tensor `name`."""
        bound = self.bound(step, f"{layer}/{name}")
        first, second = (explain(side, step, layer, bound) for side in self.sides)
        return first, second


def recently(side: Side, step: int, layer: str, *names: str) -> list[Array]:
    """Return a layer's parameter of this step and the last: a forward pass may be before both."""
    keys = [(s, f"{layer}/{name}") for s in (step, step - 1) for name in names]
    return [side[key] for key in keys if key in side]


def named_trap(
    field: str, first: Any, second: Any, where: tuple[str, ...], certain: bool = True
) -> Trap:
    """Return a trap; what has no field of Conventions is said in the two values."""
    if field not in FIELDS:
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
    settings = [
        change
        for change in sorted(changes, key=str)
        if len(change) == fewest and not any(field.startswith("_") for field, _, _ in change)
    ]
    certain = len(settings) == 1
    return [named_trap(*values, where, certain) for change in settings for values in change]


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
