"""Which tensors of two recordings belong together, and the second's axes in the first's order.

Tensors are matched by name, else by value; axes are arranged as declared, else by the values.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shared.explain.distance import Distance, distance
from shared.explain.recordings.arrangement import Arrangement, arrangements
from shared.files.recording import HALF_PRECISIONS, PYTHON_NUMBER, Recorded
from shared.reference.comparison import relative_l2
from shared.reference.layers import Array

BOUNDS = {"bfloat16": 8e-2, "float16": 1e-2, "float32": 1e-5, "float64": 1e-11}
"""Relative L2 differences that still count as rounding, coarsest dtype first.

float32: a right step of a narrow dcgan64 is within 3.3e-6 (`python -m shared.agreement`), the
smallest trap that shows there beyond rounding is at 1e-4. float64: 7e-15 against 2.9e-9. The two
half precisions: twenty roundings, for which nothing was measured.
"""
COMPANIONS = ("/gradient", "/m", "/v")
"""What is recorded of a parameter beside itself, after its name."""
KERNELS = ("kernel", "weight")
Key = tuple[int, str]
"""A pair's step and its first tensor's name."""


@dataclass(frozen=True)
class Pair:
    """Two tensors that belong together.

    `order` brings the second's axes into the first's order, None where nothing does; `misplaced`
    is one that fits exactly where the declared layouts do not.
    """

    one: Recorded
    two: Recorded
    matched_by: str
    bound: float
    order: Arrangement | None = None
    misplaced: Arrangement | None = None
    notes: tuple[str, ...] = ()
    agrees: bool = False

    @property
    def dtype(self) -> str:
        """The coarser floating dtype of the two, the first's where neither has one."""
        return coarser_dtype(self.one, self.two)

    @functools.cached_property
    def array(self) -> Array | None:
        """The second's numbers in the first's axes."""
        shape = self.one.array.shape
        return None if self.order is None else self.order.apply(self.two.array, shape)

    @functools.cached_property
    def fits(self) -> bool:
        """True within the bound of the dtypes."""
        return self.array is not None and is_within(self.array, self.one.array, self.bound)

    @functools.cached_property
    def distance(self) -> Distance:
        """How far the second is from the first."""
        if self.array is None:
            return Distance()
        expected, received = (np.asarray(v, np.float64) for v in (self.one.array, self.array))
        return distance(received, expected, self.dtype if self.dtype in BOUNDS else "float64")

    @property
    def arrangement(self) -> str:
        """How the second's axes were brought into the first's order, for a reader."""
        here, there = self.one.layout, self.two.layout
        if not self.has_the_same_letters or here == there:
            return "none" if self.order is None else self.order.describe()
        if self.order is None or self.order.is_plain:
            return f"{there} as {here}"
        in_order = replace(self.order, axes=tuple(range(self.one.array.ndim)))
        return f"{there} as {here}, {in_order.describe()}"

    @property
    def has_the_same_letters(self) -> bool:
        """True where both layouts are declared and name the same axes."""
        here, there = self.one.layout, self.two.layout
        return here is not None and there is not None and set(here) == set(there)

    def to_dict(self) -> dict[str, Any]:
        """Return names, arrangement, distance and verdict."""
        return {
            "step": self.one.step,
            "first": self.one.name,
            "second": self.two.name,
            "matched_by": self.matched_by,
            "arrangement": self.arrangement,
            "dtype": self.dtype,
            "bound": self.bound,
            **vars(self.distance),
            "agrees": self.agrees,
            "notes": self.notes,
        }


def coarser_dtype(a: Recorded, b: Recorded) -> str:
    """Return the coarser floating dtype of two tensors, the first's where neither has one."""
    return next((d for d in BOUNDS if d in (a.dtype, b.dtype)), a.dtype)


def is_within(array: Array, first: Array, bound: float) -> bool:
    """Tell whether two arrays have one shape and the same numbers but for rounding."""
    if array.shape != first.shape:
        return False
    return np.array_equal(array, first, equal_nan=True) or relative_l2(array, first) <= bound


def same_numbers(a: Recorded, b: Recorded, bound: float) -> bool:
    """Tell whether two tensors hold the same several numbers, in whatever order."""
    if a.array.size != b.array.size or np.ptp(a.array.astype(np.float64)) == 0.0:
        return False
    return relative_l2(np.sort(b.array, axis=None), np.sort(a.array, axis=None)) <= bound


def parameter_of(name: str) -> str:
    """Return the name of what a tensor is, or is the gradient, a moment or a later pass of."""
    return re.sub(r"/(gradient|m|v|\d+)$", "", name)


def is_of_kernel(name: str) -> bool:
    """Whether a tensor is a kernel, its gradient or its moment: they lie in one order."""
    return parameter_of(name).rsplit("/", 1)[-1] in KERNELS


def with_settled_dtypes(tensors: Sequence[Recorded]) -> list[Recorded]:
    """Return the tensors; a Python number gets the coarsest dtype of its whole recording."""
    coarsest = next((d for d in BOUNDS if any(t.dtype == d for t in tensors)), "float64")
    return [replace(t, dtype=coarsest) if t.dtype == PYTHON_NUMBER else t for t in tensors]


def match(
    first: Sequence[Recorded], second: Sequence[Recorded], chosen_bound: float | None
) -> tuple[list[Pair], tuple[list[Recorded], list[Recorded]]]:
    """Return the pairs in the first's order, and what is in none of each recording."""

    def bound(a: Recorded, b: Recorded) -> float:
        own = BOUNDS.get(coarser_dtype(a, b), 0.0)  # whole numbers must be equal
        return chosen_bound if chosen_bound is not None and own else own

    ways: dict[str, Callable[[Recorded, Recorded], bool]] = {
        "name": lambda a, b: a.name == b.name,
        "similar name": lambda a, b: _plain_name(a.name) == _plain_name(b.name),
        "value": lambda a, b: same_numbers(a, b, bound(a, b)),
    }
    found: dict[int, Pair] = {}
    alone = list[Recorded](), list[Recorded]()
    for step in sorted({t.step for t in (*first, *second)}):
        mine, theirs = ([t for t in side if t.step == step] for side in (first, second))
        for how, same in ways.items():
            alike = [(a, b) for a in mine for b in theirs if same(a, b)]
            counts = Counter(id(t) for pair in alike for t in pair)
            # Nothing is guessed: of a pair, each is the only one that is the same as the other.
            pairs = [(a, b) for a, b in alike if counts[id(a)] == counts[id(b)] == 1]
            found |= {id(a): Pair(a, b, how, bound(a, b)) for a, b in pairs}
            taken = {id(t) for pair in pairs for t in pair}
            mine, theirs = ([t for t in ts if id(t) not in taken] for ts in (mine, theirs))
        alone[0].extend(mine)
        alone[1].extend(theirs)
    return [found[id(t)] for t in first if id(t) in found], alone


def _plain_name(name: str) -> str:
    plain = name.lower().replace(".", "/").removesuffix(":0").removesuffix("/value")
    return re.sub("^(_orig_mod/)?(module/)?(model/)?(params/)?", "", plain)


def unmatched_text(side: str, alone: Sequence[Recorded]) -> list[str]:
    """Return a text for all tensors that are in one recording only, none where there are none."""
    if not alone:
        return []
    names, steps = list(dict.fromkeys(t.name for t in alone)), sorted({t.step for t in alone})
    shown = ", ".join(map(repr, names[:3])) + f" and {len(names) - 3} more" * (len(names) > 3)
    span = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    what = f"{len(alone)} tensors of {span} are" if len(alone) > 1 else f"one tensor of {span} is"
    return [f"{what} in the {side} recording only: {shown}"]


def align_all(matched: Iterable[Pair]) -> dict[Key, Pair]:
    """Return every pair with the second in the first's axes, and whether it agrees, in order.

    What no longer fits is arranged as the same tensor, its gradient, moment or other pass once did.
    A bias that differs counts as agreeing where it is rounding beside its layer's kernel, since a
    batch normalisation may take it away.
    """
    known: dict[tuple[Any, ...], Arrangement | None] = {}
    found = {}
    for pair in map(_align, matched):
        alike = parameter_of(pair.one.name), pair.one.array.shape, pair.two.array.shape
        if pair.fits:
            known.setdefault(alike, pair.order)
        elif alike in known and pair.misplaced is None:
            pair = replace(pair, order=known[alike], notes=())
        found[pair.one.step, pair.one.name] = replace(pair, agrees=pair.fits)
    for key, pair in found.items():
        if not pair.agrees and _is_rounding_beside_its_kernel(pair, found):
            notes = (*pair.notes, "rounding beside its kernel's")
            found[key] = replace(pair, agrees=True, notes=notes)
    return found


def _is_rounding_beside_its_kernel(pair: Pair, found: Mapping[Key, Pair]) -> bool:
    step, name = pair.one.step, pair.one.name
    names = [name.replace("bias", kernel) for kernel in KERNELS] if "bias" in name else []
    kernel = next((found[step, n] for n in names if (step, n) in found), None)
    if kernel is None or pair.array is None:
        return False
    apart = np.linalg.norm(np.asarray(pair.array, np.float64) - pair.one.array)
    return bool(apart <= pair.bound * np.linalg.norm(kernel.one.array))


def _align(pair: Pair) -> Pair:
    a, b = pair.one, pair.two
    notes = [f"recorded as {d}" for d in dict.fromkeys((a.dtype, b.dtype)) if d in HALF_PRECISIONS]
    if pair.has_the_same_letters:
        order, misplaced = _declared(pair)
        if order or misplaced:
            return replace(pair, order=order, misplaced=misplaced, notes=tuple(notes))
    elif a.layout and b.layout and a.array.ndim == b.array.ndim:
        notes.append(f"layouts {a.layout} and {b.layout} differ in letters; went by the values")
    order, more = _by_value(pair)
    pair = replace(pair, notes=(*notes, *more))
    if order is not None and _is_bgr(pair, order):
        return replace(pair, order=replace(order, flipped=()), misplaced=order)
    return replace(pair, order=order)


def _declared(pair: Pair) -> tuple[Arrangement | None, Arrangement | None]:
    """Return what the declared layouts say, and what fits instead where that does not."""
    axes = tuple((pair.two.layout or "").index(letter) for letter in pair.one.layout or "")
    declared = replace(pair, order=Arrangement(axes))
    has_the_shape = tuple(pair.two.array.shape[axis] for axis in axes) == pair.one.array.shape
    if has_the_shape and declared.fits:
        return declared.order, None
    other = next(_exact(pair), None)
    if other and other.axes == axes and not other.in_memory and not _is_bgr(pair, other):
        return other, None  # flipped or refolded within the declared axes
    return declared.order if has_the_shape else None, other


def _is_bgr(pair: Pair, order: Arrangement) -> bool:
    """Whether an arrangement reverses the channels of images: no matter of layout, but wrong."""
    return bool(order.flipped) and not is_of_kernel(pair.one.name)


def _by_value(pair: Pair) -> tuple[Arrangement | None, list[str]]:
    """Return the arrangement that fits, or the most likely one, and what is to be noted of it."""
    a, b = pair.one, pair.two
    if exact := list(_exact(pair)):
        several = [x.describe() for x in exact if x.is_plain]
        if len(several) <= 1:
            return exact[0], []
        texts = "; ".join(several[:4])
        return exact[0], [f"{len(several)} orders of the axes fit equally: {texts}"]
    notes = []
    if same_numbers(a, b, pair.bound) and not _is_uniform(a.array):
        notes = ["the same numbers, in an order that no order of axes, flip or flattening explains"]
    plain = [x for x in arrangements(a, b) if x.is_plain]
    if not plain:
        return None, [*notes, f"shapes {a.array.shape} and {b.array.shape} do not fit"]
    best = plain[0] if len(plain) == 1 else _most_alike(pair, plain)
    if best is not None:
        return best, notes
    text = f"{len(plain)} orders of the axes fit the shapes, none the values"
    return plain[0], [*notes, f"{text}; compared {plain[0].describe()}"]


def _most_alike(pair: Pair, plain: list[Arrangement]) -> Arrangement | None:
    """Return the order of axes that makes two different tensors clearly the most correlated."""
    x, y = (t.array.astype(np.float64) for t in (pair.one, pair.two))
    arranged = [order.apply(y, x.shape).ravel() for order in plain]
    alike = np.nan_to_num(np.abs([np.corrcoef(x.ravel(), y)[0, 1] for y in arranged]))
    *_, second, best = np.argsort(alike)
    # Axes that need not be moved are moved for near equality alone.
    needed = 0.99 if best != 0 and plain[0].describe() == "as it is" else 0.3
    return plain[best] if alike[best] >= max(needed, alike[second] + 0.1) else None


def _is_uniform(array: Array) -> bool:
    """True for what shows its order in nothing but signs: a bias after Adam's first update."""
    sizes = np.abs(np.asarray(array, np.float64))
    return bool(np.ptp(sizes) <= 1e-2 * sizes.max())


def _exact(pair: Pair) -> Iterator[Arrangement]:
    x, y = pair.one.array, pair.two.array
    # No element may differ by more than the whole tensor may: a few distinguish most orders.
    limit = pair.bound * np.linalg.norm(np.asarray(x, np.float64))
    places = np.random.default_rng(0).integers(0, x.size, min(x.size, 256))
    sample = np.unravel_index(places, x.shape) if x.ndim else ()
    is_uniform = _is_uniform(x)
    for candidate in arrangements(pair.one, pair.two):
        if is_uniform and not candidate.is_plain:
            continue
        arranged = candidate.apply(y, x.shape)
        apart = np.abs(np.asarray(arranged[sample], np.float64) - x[sample])
        if not (apart > limit).any() and is_within(arranged, x, pair.bound):
            yield candidate
