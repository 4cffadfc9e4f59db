"""Which tensors of two recordings belong together, and what counts as rounding between them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from shared.files.recording import PYTHON_NUMBER, Recorded, Recording
from shared.reference.comparison import relative_l2
from shared.reference.layers import Array

BOUNDS = {"bfloat16": 8e-2, "float16": 1e-2, "float32": 1e-5, "float64": 1e-11}
"""Relative L2 differences that still count as rounding, coarsest dtype first.

float32: a right step of a narrow dcgan64 is within 2.1e-6 (`python -m shared.agreement`), the
smallest trap that shows there beyond rounding is at 1e-4. float64: 7e-15 against 2.9e-9. The two
half precisions: twenty roundings, for which nothing was measured.
"""

Match = tuple[Recorded, Recorded, str]


def with_settled_dtypes(recording: Recording) -> tuple[Recorded, ...]:
    """Return the tensors; a Python number gets the coarsest dtype of its whole recording."""
    held = {t.dtype for t in recording.tensors}
    coarsest = next((d for d in BOUNDS if d in held), "float64")
    return tuple(
        dataclasses.replace(t, dtype=coarsest) if t.dtype == PYTHON_NUMBER else t
        for t in recording.tensors
    )


def coarser_dtype(a: Recorded, b: Recorded) -> str:
    """Return the coarser floating dtype of two tensors, the first's where neither has one."""
    return next((d for d in BOUNDS if d in (a.dtype, b.dtype)), a.dtype)


def bound_of(a: Recorded, b: Recorded, chosen: float | None) -> float:
    """Return the `chosen` bound or that of the coarser dtype; whole numbers must be equal."""
    bound = BOUNDS.get(coarser_dtype(a, b), 0.0)
    return chosen if chosen is not None and bound else bound


def is_within(array: Array, first: Array, bound: float) -> bool:
    """Tell whether two arrays have one shape and the same numbers but for rounding."""
    if array.shape != first.shape:
        return False
    return np.array_equal(array, first, equal_nan=True) or relative_l2(array, first) <= bound


def hold_the_same_numbers(a: Recorded, b: Recorded, bound: float) -> bool:
    """Tell whether two tensors hold the same several numbers, in whatever order."""
    if a.array.size != b.array.size or np.ptp(a.array.astype(np.float64)) == 0.0:
        return False
    return relative_l2(np.sort(b.array, axis=None), np.sort(a.array, axis=None)) <= bound


def match(
    first: Sequence[Recorded], second: Sequence[Recorded], bound: float | None
) -> tuple[list[Match], tuple[str, ...]]:
    """Return the pairs in the first's order, and a text for every tensor that is in none."""

    def by_value(a: Recorded, b: Recorded) -> bool:
        return hold_the_same_numbers(a, b, bound_of(a, b, bound))

    ways: dict[str, Callable[[Recorded, Recorded], bool]] = {
        "name": lambda a, b: a.name == b.name,
        "similar name": lambda a, b: _plain_name(a.name) == _plain_name(b.name),
        "value": by_value,
    }
    found: dict[int, Match] = {}
    texts: list[str] = []
    for step in sorted({t.step for t in (*first, *second)}):
        mine, theirs = ([t for t in side if t.step == step] for side in (first, second))
        for how, same in ways.items():
            alike = [(a, b) for a in mine for b in theirs if same(a, b)]
            counts = Counter(id(t) for pair in alike for t in pair)
            # Nothing is guessed: of a pair, each is the only one that is the same as the other.
            pairs = [(a, b) for a, b in alike if counts[id(a)] == counts[id(b)] == 1]
            found |= {id(a): (a, b, how) for a, b in pairs}
            taken = {id(t) for pair in pairs for t in pair}
            mine, theirs = ([t for t in ts if id(t) not in taken] for ts in (mine, theirs))
        texts += [_unmatched_text("first", a, [b for b in theirs if by_value(a, b)]) for a in mine]
        texts += [_unmatched_text("second", b, [a for a in mine if by_value(a, b)]) for b in theirs]
    return [found[id(t)] for t in first if id(t) in found], tuple(texts)


def _plain_name(name: str) -> str:
    """Return a name without case, wrappers' prefixes and frameworks' suffixes."""
    plain = name.lower().replace(".", "/")
    for prefix in ("_orig_mod/", "module/", "model/", "params/"):
        plain = plain.removeprefix(prefix)
    return plain.removesuffix(":0").removesuffix("/value")


def _unmatched_text(side: str, tensor: Recorded, candidates: list[Recorded]) -> str:
    text = f"{tensor.name!r} of step {tensor.step} is in the {side} recording only"
    if not candidates:
        return text
    names = ", ".join(repr(c.name) for c in candidates[:4])
    return f"{text} by name; by its numbers it could be any of: {names}"
