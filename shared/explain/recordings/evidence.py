"""What the traps are looked for in: each side's numbers by themselves, and what explains them."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.explain.catalogue import FIELDS, FITTED, FIXES, KNOWN_VALUES, ROWS
from shared.explain.recordings.matching import Key, Pair
from shared.files.recording import Recorded
from shared.reference.layers import Array
from shared.spec import AdamSpec

Side = Mapping[Key, Array]
"""One side's numbers, float64 in the first's axes."""

Explanation = tuple[tuple[str, Any], ...]
"""A value for each field; fields that begin with _ are no conventions but have to be the same."""

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

    @property
    def title(self) -> str:
        """The convention and both sides' values, in words."""
        field = f"{self.field.replace('_', ' ')}: " if self.field else ""
        return f"{field}first {self.first}, second {self.second}"

    def to_dict(self) -> dict[str, Any]:
        """Return title, first place, row of docs/porting.md, and the value that is another."""
        fields = {}
        if self.field:
            values = [_number(text) for text in (self.second, self.first)]
            fields[self.field] = next((v for v in values if v != listed(self.field)[0]), values[0])
        return {"title": self.title, "stage": self.where[0], "fields": fields, "row": self.anchor}

    def explains(self, name: str) -> bool:
        """Whether a tensor is one of the layers or parameters that the trap was found in."""
        layers = [found[1] for found in map(_OF_LAYER.fullmatch, self.where) if found]
        return any(name == x or name.startswith(f"{x}/") for x in (*self.where, *layers))


_OF_LAYER = re.compile(r"(.+)/(?:input|output|mean|var)(?:/\d+)?")


class Evidence:
    """The numbers of both sides, with passes that one alone has, and which pairs disagree."""

    def __init__(self, pairs: Mapping[Key, Pair], single: Iterable[Iterable[Recorded]]) -> None:
        self.pairs = pairs
        self.disagreeing = {key: pair for key, pair in pairs.items() if not pair.agrees}
        self.sides: tuple[dict[Key, Array], dict[Key, Array]] = (
            {k: np.asarray(p.one.array, np.float64) for k, p in pairs.items()},
            {k: np.asarray(p.array, np.float64) for k, p in pairs.items() if p.array is not None},
        )
        for side, tensors in zip(self.sides, single, strict=True):
            for tensor in tensors:
                of_pass = _PASSES.fullmatch(tensor.name)
                pair = pairs.get((tensor.step, of_pass[1])) if of_pass else None
                if pair and pair.order:
                    array = tensor.array.astype(np.float64)
                    if side is self.sides[1] and array.shape == pair.two.array.shape:
                        array = pair.order.apply(array, pair.one.array.shape)
                    side[tensor.step, tensor.name] = array


def _number(text: str) -> Any:
    """Return the value that a text of it stands for."""
    try:
        return float(text)
    except ValueError:
        return {"True": True, "False": False}.get(text, text)


def multiple(of: Array, array: Array) -> float:
    """Return the factor that brings one array nearest to another; nan where it is 0."""
    return float(np.vdot(of, array) / np.vdot(of, of)) if of.any() else math.nan


def listed(field: str) -> list[Any]:
    """Return the canonical value of a field and every other one that it is known to take."""
    own = FIELDS[field]
    if own is None:
        own = getattr(AdamSpec(), FITTED[field].of_adam)
    return [own, *KNOWN_VALUES[field]]


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
    if field in FIXES:
        return Trap(field, FIXES[field]["row"], str(first), str(second), where, certain)
    return Trap(None, ROWS.get(field), f"{field} {first}", f"{field} {second}", where, certain)


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
    smallest = sorted((change for change in changes if len(change) == fewest), key=str)
    named = [x for x in smallest if not any(field.startswith("_") for field, _, _ in x)]
    return [named_trap(*values, where, len(named) == 1) for change in named for values in change]


def merged(traps: Iterable[Trap]) -> tuple[Trap, ...]:
    """Return each trap once, with all its places; a doubtful one only where no other is sure."""
    found: dict[tuple[Any, ...], Trap] = {}
    for trap in traps:
        key = trap.field, trap.first, trap.second
        earlier = found.get(key, trap)
        where, certain = dict.fromkeys(earlier.where + trap.where), earlier.certain or trap.certain
        found[key] = dataclasses.replace(trap, where=tuple(where), certain=certain)
    settled = {name for trap in found.values() if trap.certain for name in trap.where}
    return tuple(t for t in found.values() if t.certain or not settled.issuperset(t.where))
