"""What the traps are looked for in: each side's numbers by themselves, and what explains them."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.explain.catalogue import FIELDS, FITTED, FIXES, known_values
from shared.explain.recordings.matching import Key
from shared.explain.recordings.pairs import Pair
from shared.files.recording import Recorded
from shared.reference.comparison import relative_l2
from shared.reference.layers import Array
from shared.spec import SYSTEMS

Side = Mapping[Key, Array]
"""One side's numbers, float64 in the first's axes."""

Explanation = tuple[tuple[str, Any], ...]
"""A value for each field; fields that begin with _ are no conventions but have to be the same."""

Ways = Iterable[tuple[Explanation, Array, Array]]
"""Every way in which one side may have computed something of a layer, the numbers that the
reference gets in this way, and those that are recorded."""

_PASSES = re.compile(r"(.+/(?:input|output))/\d+")
"""The name of a tensor of a layer's second or later pass in a step, and that of the first."""


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

    def explains(self, name: str) -> bool:
        """Whether a tensor is one of the layers or parameters that the trap was found in."""
        layers = [found[1] for found in map(_OF_LAYER.fullmatch, self.where) if found]
        return any(name == x or name.startswith(f"{x}/") for x in (*self.where, *layers))


_ROWS = {
    "gradient scale": "gradient-scale",
    "updates": "optimizer-steps",
    "passes a step:": "generator-batch-forward",
    "running average": "batch-norm-debias",
    "second moments in Adam's root:": "adam-amsgrad",
}
"""Rows of docs/porting.md of what is no field of `Conventions`, or none for this network."""
_OF_LAYER = re.compile(r"(.+)/(?:input|output|mean|var)(?:/\d+)?")


class Evidence:
    """The numbers of both sides, and which of the paired ones disagree.

    `extra` are the names of further passes that one side alone has recorded.
    """

    def __init__(self, pairs: Mapping[Key, Pair], single: Iterable[Iterable[Recorded]]) -> None:
        self.pairs = pairs
        self.disagreeing = {key for key, pair in pairs.items() if not pair.agrees}
        self.sides: tuple[dict[Key, Array], dict[Key, Array]] = (
            {k: np.asarray(p.one.array, np.float64) for k, p in pairs.items()},
            {k: np.asarray(p.array, np.float64) for k, p in pairs.items() if p.array is not None},
        )
        self.extra: tuple[list[str], list[str]] = [], []
        for side, extra, tensors in zip(self.sides, self.extra, single, strict=True):
            for tensor in tensors:
                of_pass = _PASSES.fullmatch(tensor.name)
                pair = pairs.get((tensor.step, of_pass[1])) if of_pass else None
                if pair and pair.order:
                    array = tensor.array.astype(np.float64)
                    if side is self.sides[1] and array.shape == pair.two.array.shape:
                        array = pair.order.apply(array, pair.one.array.shape)
                    side[tensor.step, tensor.name] = array
                    extra.append(tensor.name)

    def explained(
        self, operation: Callable[[Side, int, str], Ways], tensor: str
    ) -> Iterator[tuple[str, set[Explanation], set[Explanation]]]:
        """Yield every layer whose `tensor` disagrees, and what explains it on each side."""
        for step, name in self.disagreeing_in_order(f"/{tensor}"):
            layer, bound = name.rsplit("/", 1)[0], self.pairs[step, name].bound
            first, second = (
                {e for e, made, recorded in ways if relative_l2(made, recorded) <= bound}
                for ways in (operation(side, step, layer) for side in self.sides)
            )
            yield layer, simplest(first), simplest(second)

    def disagreeing_in_order(self, ending: str | tuple[str, ...]) -> list[Key]:
        """Return the pairs that disagree and whose name ends so, in recorded order."""
        return [key for key in self.pairs if key in self.disagreeing and key[1].endswith(ending)]


def multiple(of: Array, array: Array) -> float:
    """Return the factor that brings one array nearest to another; nan where it is 0."""
    return float(np.vdot(of, array) / np.vdot(of, of)) if of.any() else math.nan


def listed(field: str) -> list[Any]:
    """Return the canonical value of a field and every other one that it is known to take."""
    own = FIELDS[field]
    if own is None:
        own = getattr(SYSTEMS["dcgan64"].generator_optimizer, FITTED[field].of_adam)
    return [own, *known_values()[field]]


def simplest(explanations: set[Explanation]) -> set[Explanation]:
    """Return the explanations with the fewest and roundest numbers that are no listed value."""
    costs = {
        e: sum(len(str(v)) for field, v in e if field in FIELDS and v not in listed(field))
        for e in explanations
    }
    return {e for e, cost in costs.items() if cost == min(costs.values())}


def named_trap(
    field: str, first: Any, second: Any, where: tuple[str, ...], certain: bool = True
) -> Trap:
    """Return a trap; what has no field of Conventions is named in the two values."""
    if field not in FIXES:
        texts = f"{field} {first}", f"{field} {second}"
        return Trap(None, _ROWS.get(field), *texts, where, certain)
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
