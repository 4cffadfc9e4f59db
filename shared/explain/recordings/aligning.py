"""Bringing the second's axes into the first's order, and how far the numbers are apart there."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from shared.explain.distance import worst_element
from shared.explain.recordings.arrangement import Arrangement, arrangements
from shared.explain.recordings.matching import (
    BOUNDS,
    Match,
    bound_of,
    coarser_dtype,
    hold_the_same_numbers,
    is_within,
)
from shared.explain.recordings.report import Pair
from shared.files.recording import HALF_PRECISIONS, Recorded
from shared.reference.comparison import relative_l2
from shared.reference.layers import Array

COMPANIONS = ("/gradient", "/m", "/v")
"""What is recorded of a parameter beside itself, after its name."""
KERNELS = ("kernel", "weight")
Key = tuple[int, str]
"""A pair's step and its first tensor's name."""


@dataclass(frozen=True)
class Aligned:
    """A pair with the second's numbers in the first's axes; None where no arrangement fits.

    `fits`: within the bound of the dtypes. `misplaced` is an arrangement that fits exactly where
    the declared layouts do not.
    """

    first: Recorded
    second: Recorded
    matched_by: str
    arrangement: Arrangement | None
    bound: float
    notes: tuple[str, ...]
    misplaced: Arrangement | None = None

    @functools.cached_property
    def array(self) -> Array | None:
        """The second's numbers in the first's axes."""
        if self.arrangement is None:
            return None
        return self.arrangement.apply(self.second.array, self.first.array.shape)

    @functools.cached_property
    def fits(self) -> bool:
        """True within the bound of the dtypes."""
        return self.array is not None and is_within(self.array, self.first.array, self.bound)


def align_all(matches: Iterable[Match], bound: float | None) -> dict[Key, Aligned]:
    """Return every pair with the second in the first's axes, in the order of the matches.

    What no longer fits is arranged as the same parameter, or its gradient or moment, once did.
    """
    known: dict[str, Aligned] = {}
    result = {}
    for match in matches:
        x = _align(match, bound)
        name = x.first.name
        for companion in COMPANIONS:
            name = name.removesuffix(companion)
        if x.fits:
            known.setdefault(name, x)
        elif name in known and x.misplaced is None and _shapes(known[name]) == _shapes(x):
            x = dataclasses.replace(x, arrangement=known[name].arrangement, notes=())
        result[x.first.step, x.first.name] = x
    return result


def _shapes(x: Aligned) -> tuple[tuple[int, ...], ...]:
    return x.first.array.shape, x.second.array.shape


def _have_the_same_letters(a: Recorded, b: Recorded) -> bool:
    return a.layout is not None and b.layout is not None and set(a.layout) == set(b.layout)


def _align(match: Match, chosen_bound: float | None) -> Aligned:
    a, b, matched_by = match
    bound = bound_of(a, b, chosen_bound)
    notes = [f"recorded as {d}" for d in dict.fromkeys((a.dtype, b.dtype)) if d in HALF_PRECISIONS]
    chosen, misplaced = None, None
    if _have_the_same_letters(a, b):
        chosen, misplaced = _declared(a, b, bound)
    elif a.layout and b.layout and a.array.ndim == b.array.ndim:
        notes.append(f"layouts {a.layout} and {b.layout} differ in letters; went by the values")
    if chosen is None and misplaced is None:
        chosen, more = _by_value(a, b, bound)
        notes += more
    return Aligned(a, b, matched_by, chosen, bound, tuple(notes), misplaced)


def _declared(
    a: Recorded, b: Recorded, bound: float
) -> tuple[Arrangement | None, Arrangement | None]:
    """Return what the declared layouts say, and what fits instead where that does not."""
    axes = tuple((b.layout or "").index(letter) for letter in a.layout or "")
    chosen: Arrangement | None = Arrangement(axes)
    if tuple(b.array.shape[axis] for axis in axes) != a.array.shape:
        chosen = None
    elif is_within(b.array.transpose(axes), a.array, bound):
        return chosen, None
    other = next(_exact(a, b, bound), None)
    if other and other.axes == axes and not other.in_memory:
        return other, None  # turned round or refolded within the declared axes
    return chosen, other


def _by_value(a: Recorded, b: Recorded, bound: float) -> tuple[Arrangement | None, list[str]]:
    """Return the arrangement that fits, or the most likely one, and what is to be noted of it."""
    if exact := list(_exact(a, b, bound)):
        several = [x.describe() for x in exact if x.is_plain]
        if len(several) == 1 or not several:
            return exact[0], []
        texts = "; ".join(several[:4])
        return exact[0], [f"{len(several)} orders of the axes fit equally: {texts}"]
    notes = []
    if hold_the_same_numbers(a, b, bound) and not _is_uniform(a.array):
        notes = ["the same numbers, in an order that no order of axes, flip or flattening explains"]
    plain = [x for x in arrangements(a, b) if x.is_plain]
    if not plain:
        return None, [*notes, f"shapes {a.array.shape} and {b.array.shape} do not fit"]
    best = plain[0] if len(plain) == 1 else _most_alike(a, b, plain)
    if best is not None:
        return best, notes
    text = f"{len(plain)} orders of the axes fit the shapes, none the values"
    return plain[0], [*notes, f"{text}; compared {plain[0].describe()}"]


def _most_alike(a: Recorded, b: Recorded, plain: list[Arrangement]) -> Arrangement | None:
    """Return the order of axes that makes two different tensors clearly the most correlated."""
    x = a.array.astype(np.float64).ravel()
    arranged = [p.apply(b.array, a.array.shape).astype(np.float64).ravel() for p in plain]
    alike = np.nan_to_num(np.abs([np.corrcoef(x, y)[0, 1] for y in arranged]))
    *_, second, best = np.argsort(alike)
    # Axes that need not be moved are moved for near equality alone.
    needed = 0.99 if best != 0 and plain[0].describe() == "as it is" else 0.3
    return plain[best] if alike[best] >= max(needed, alike[second] + 0.1) else None


def _is_uniform(array: Array) -> bool:
    """True for what shows its order in nothing but signs: a bias after Adam's first update."""
    sizes = np.abs(np.asarray(array, np.float64))
    return bool(np.ptp(sizes) <= 1e-2 * sizes.max())


def _exact(a: Recorded, b: Recorded, bound: float) -> Iterator[Arrangement]:
    """Yield every arrangement that fits, the simplest first."""
    x, y = a.array, b.array
    if x.size != y.size:
        return
    # No element may differ by more than the whole tensor may: a few tell most orders apart.
    limit = bound * np.linalg.norm(np.asarray(x, np.float64))
    places = np.random.default_rng(0).integers(0, x.size, min(x.size, 256))
    sample = np.unravel_index(places, x.shape) if x.ndim else ()
    is_uniform = _is_uniform(x)
    for candidate in arrangements(a, b):
        if is_uniform and not candidate.is_plain:
            continue
        arranged = candidate.apply(y, x.shape)
        apart = np.abs(np.asarray(arranged[sample], np.float64) - x[sample])
        if not (apart > limit).any() and is_within(arranged, x, bound):
            yield candidate


def compare(aligned: Aligned, by_name: Mapping[Key, Aligned]) -> Pair:
    """Return the differences of a pair; `by_name` holds all pairs, of which one may be its kernel.

    A bias that differs counts as agreeing where it is rounding beside the kernel of its layer.
    """
    a, b = aligned.first, aligned.second
    agrees, notes, dtype = aligned.fits, aligned.notes, coarser_dtype(a, b)
    if not agrees and _is_rounding_beside_its_kernel(aligned, by_name):
        agrees, notes = True, (*notes, "rounding beside its kernel's")
    difference = largest = ulp = first = second = math.nan
    worst: tuple[int, ...] = ()
    if aligned.array is not None:
        x, y = (np.asarray(v, np.float64) for v in (a.array, aligned.array))
        in_units_of = dtype if dtype in BOUNDS else "float64"
        largest, ulp, worst, second, first = worst_element(y, x, in_units_of)
        difference = relative_l2(y, x) if largest else 0.0
    return Pair(
        step=a.step,
        first=a.name,
        second=b.name,
        matched_by=aligned.matched_by,
        arrangement=_arrangement_text(aligned),
        dtype=dtype,
        bound=aligned.bound,
        relative_l2=difference,
        max_abs=largest,
        ulp=ulp,
        worst=worst,
        worst_values=(first, second),
        agrees=agrees,
        notes=notes,
    )


def _arrangement_text(aligned: Aligned) -> str:
    a, b, arrangement = aligned.first, aligned.second, aligned.arrangement
    if not _have_the_same_letters(a, b) or a.layout == b.layout:
        return "none" if arrangement is None else arrangement.describe()
    text = f"{b.layout} as {a.layout}"
    if arrangement is None or arrangement.is_plain:
        return text
    in_order = dataclasses.replace(arrangement, axes=tuple(range(a.array.ndim)))
    return f"{text}, {in_order.describe()}"


def _is_rounding_beside_its_kernel(aligned: Aligned, by_name: Mapping[Key, Aligned]) -> bool:
    """Tell whether a bias, which a batch normalisation may take away, differs by its rounding."""
    a = aligned.first
    if "bias" not in a.name or aligned.array is None:
        return False
    names = [a.name.replace("bias", kernel) for kernel in KERNELS]
    kernel = next((by_name[a.step, n] for n in names if (a.step, n) in by_name), None)
    if kernel is None:
        return False
    apart = np.linalg.norm(np.asarray(aligned.array, np.float64) - a.array)
    return bool(apart <= aligned.bound * np.linalg.norm(kernel.first.array))
