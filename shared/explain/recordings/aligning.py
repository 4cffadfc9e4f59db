"""Bringing the second's axes into the first's order: by the declared layouts or by the values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from shared.explain.recordings.arrangement import Arrangement, arrangements
from shared.explain.recordings.matching import Match
from shared.explain.recordings.rounding import (
    bound_of,
    coarser_dtype,
    holds_the_same_numbers,
    is_within,
)
from shared.files.recording import HALF_PRECISIONS, Recorded
from shared.reference.layers import Array

COMPANIONS = ("/gradient", "/m", "/v")
"""What is recorded of a parameter beside itself, after its name."""


@dataclass(frozen=True)
class Aligned:
    """A pair with the second's numbers in the first's axes; None where no arrangement fits.

    `fits`: within the bound of the dtypes. `misplaced` is an arrangement that fits exactly where
    the declared layouts do not.
    """

    first: Recorded
    second: Recorded
    matched_by: str
    array: Array | None
    arrangement: Arrangement | None
    bound: float
    dtype: str
    fits: bool
    notes: tuple[str, ...]
    misplaced: Arrangement | None = None


Key = tuple[int, str]
"""A pair's step and its first tensor's name."""


def align_all(matches: Iterable[Match], bound: float | None) -> dict[Key, Aligned]:
    """Return every pair with the second in the first's axes, in the order of the matches.

    What no longer fits is arranged as the same parameter, or its gradient or moment, once did.
    """
    known: dict[str, Aligned] = {}
    result = {}
    for match in matches:
        x = _align(match, bound)
        name = x.first.name
        for part in COMPANIONS:
            name = name.removesuffix(part)
        if x.fits:
            known.setdefault(name, x)
        elif name in known and x.misplaced is None:
            x = _arranged_as(known[name], x)
        result[x.first.step, x.first.name] = x
    return result


def _arranged_as(earlier: Aligned, x: Aligned) -> Aligned:
    """Return a pair that does not fit in the arrangement of an earlier one of the same shapes."""
    shapes = ([t.array.shape for t in (pair.first, pair.second)] for pair in (earlier, x))
    if earlier.arrangement is None or next(shapes) != next(shapes):
        return x
    array = earlier.arrangement.apply(x.second.array, x.first.array.shape)
    return dataclasses.replace(x, array=array, arrangement=earlier.arrangement, notes=())


def have_the_same_letters(a: Recorded, b: Recorded) -> bool:
    """Tell whether both layouts are declared and made of the same letters."""
    return a.layout is not None and b.layout is not None and set(a.layout) == set(b.layout)


def _align(match: Match, chosen_bound: float | None) -> Aligned:
    a, b, matched_by = match
    bound = bound_of(a, b, chosen_bound)
    notes = [f"recorded as {d}" for d in dict.fromkeys((a.dtype, b.dtype)) if d in HALF_PRECISIONS]
    chosen, misplaced = None, None
    if have_the_same_letters(a, b):
        chosen, misplaced = _declared(a, b, bound)
    elif a.layout and b.layout and a.array.ndim == b.array.ndim:
        notes.append(f"layouts {a.layout} and {b.layout} differ in letters; went by the values")
    if chosen is None and misplaced is None:
        chosen, more = _by_value(a, b, bound)
        notes += more
    array = None if chosen is None else chosen.apply(b.array, a.array.shape)
    return Aligned(
        first=a,
        second=b,
        matched_by=matched_by,
        array=array,
        arrangement=chosen,
        bound=bound,
        dtype=coarser_dtype(a, b),
        fits=array is not None and is_within(array, a.array, bound),
        notes=tuple(notes),
        misplaced=misplaced,
    )


def _declared(
    a: Recorded, b: Recorded, bound: float
) -> tuple[Arrangement | None, Arrangement | None]:
    """Return what the declared layouts say, and what fits instead where that does not."""
    assert a.layout is not None
    assert b.layout is not None
    axes = tuple(b.layout.index(letter) for letter in a.layout)
    chosen: Arrangement | None = Arrangement(axes)
    if tuple(b.array.shape[axis] for axis in axes) != a.array.shape:
        chosen = None
    elif is_within(b.array.transpose(axes), a.array, bound):
        return chosen, None
    others = _exact(a, b, bound)
    if others and others[0].axes == axes and not others[0].in_memory:
        return others[0], None  # turned round or refolded within the declared axes
    return chosen, others[0] if others else None


def _by_value(a: Recorded, b: Recorded, bound: float) -> tuple[Arrangement | None, list[str]]:
    """Return the arrangement that fits, or the most likely one, and what is to be said of it."""
    exact = _exact(a, b, bound)
    if exact:
        several = [x for x in exact if x.is_plain]
        if len(several) > 1:
            texts = "; ".join(x.describe() for x in several[:4])
            return exact[0], [f"{len(several)} orders of the axes fit equally: {texts}"]
        return exact[0], []
    notes = []
    if holds_the_same_numbers(a, b, bound) and not _is_uniform(a.array):
        notes = ["the same numbers, in an order that no order of axes, flip or flattening explains"]
    plain = [x for x in arrangements(a, b) if x.is_plain]
    if not plain:
        return None, [*notes, f"shapes {a.array.shape} and {b.array.shape} do not fit"]
    if len(plain) == 1:
        return plain[0], notes
    best = _most_alike(a, b, plain)
    if best is not None:
        return best, notes
    text = f"{len(plain)} orders of the axes fit the shapes, none the values"
    return plain[0], [*notes, f"{text}; compared {plain[0].describe()}"]


def _most_alike(a: Recorded, b: Recorded, plain: list[Arrangement]) -> Arrangement | None:
    """Return the order of axes that makes two different tensors clearly the most correlated."""
    alike = [abs(_correlation(x.apply(b.array, a.array.shape), a.array)) for x in plain]
    best = int(np.argmax(alike))
    lead = alike[best] - max(value for i, value in enumerate(alike) if i != best)
    # Axes that need not be moved are moved for near equality alone.
    needed = 0.99 if best != 0 and plain[0].describe() == "as it is" else 0.3
    return plain[best] if alike[best] >= needed and lead >= 0.1 else None


def _correlation(x: Array, y: Array) -> float:
    x, y = (np.asarray(v, np.float64).ravel() for v in (x, y))
    x, y = x - x.mean(), y - y.mean()
    size = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / size) if np.isfinite(size) and size > 0 else 0.0


def _is_uniform(array: Array) -> bool:
    """True for what shows its order in nothing but signs: a bias after Adam's first update."""
    sizes = np.abs(np.asarray(array, np.float64))
    return bool(np.ptp(sizes) <= 1e-2 * sizes.max())


def _exact(a: Recorded, b: Recorded, bound: float) -> list[Arrangement]:
    """Return every arrangement that fits, the simplest first."""
    x, y = a.array, b.array
    if x.size != y.size:
        return []
    # No element may differ by more than the whole tensor may: a few tell most orders apart.
    limit = bound * np.linalg.norm(np.asarray(x, np.float64))
    places = np.random.default_rng(0).integers(0, x.size, min(x.size, 256))
    sample = np.unravel_index(places, x.shape) if x.ndim else ()
    is_uniform = _is_uniform(x)
    found = []
    for candidate in arrangements(a, b):
        if is_uniform and not candidate.is_plain:
            continue
        arranged = candidate.apply(y, x.shape)
        apart = np.abs(np.asarray(arranged[sample], np.float64) - x[sample])
        if not (apart > limit).any() and is_within(arranged, x, bound):
            found.append(candidate)
    return found
