"""Two recordings of anybody's training loops: which tensors belong together, where they part, why.

    report = explain_recordings(Path("theirs.safetensors"), Path("ours.safetensors"))
    print(format_report(report))

In this order: tensors are matched by name, then by value; the second's axes are arranged as the
first's; every pair is compared in recorded order; the traps that the recorded names allow to
check are tried on both sides. A trap is named only where each side by itself is explained by a
convention and the two conventions differ. docs/recordings.md says what to record.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from shared.comparison import relative_l2, ulp_error
from shared.record import PYTHON_NUMBER, Recorded, Recording, read_recording
from shared.reference import layers
from shared.reference.adam import adam_update
from shared.spec import AdamSpec, Conventions

Array = np.ndarray

BOUNDS = {"bfloat16": 8e-2, "float16": 1e-2, "float32": 1e-5, "float64": 1e-11}
"""Relative L2 differences that still count as rounding, coarsest dtype first.

float32: a right step of a narrow dcgan64 is within 2.1e-6 (`python -m shared.agreement`), the
smallest trap that shows there beyond rounding is at 1e-4. float64: 7e-15 against 2.9e-9. The two
half precisions: twenty roundings, for which nothing was measured.
"""

KERNELS = ("kernel", "weight")
_MAXIMUM_AXES = 5


@dataclass(frozen=True)
class Pair:
    """Two recorded tensors that belong together, and how far they are apart.

    `arrangement` says how the second's axes were brought into the first's order. `worst` is the
    index of the largest absolute difference, in the first's axes. Numbers are nan where the shapes
    do not fit. `ulp` is that of the worst element, in units of the first's number.
    """

    step: int
    first: str
    second: str
    matched_by: str
    arrangement: str
    dtype: str
    bound: float
    relative_l2: float
    max_abs: float
    ulp: float
    worst: tuple[int, ...]
    worst_values: tuple[float, float]
    agrees: bool
    notes: tuple[str, ...]


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


@dataclass(frozen=True)
class RecordingReport:
    """What two recordings have in common and where they part.

    `parting` is the index in `pairs` of the first that differs, None where all agree. `unmatched`
    names what only one of them holds or what could not be matched without guessing.
    """

    paths: tuple[str, str]
    frameworks: tuple[str, str]
    pairs: tuple[Pair, ...]
    parting: int | None
    traps: tuple[Trap, ...]
    unmatched: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON data; nan and infinities become text."""
        plain = _plain(dataclasses.asdict(self))
        assert isinstance(plain, dict)
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def explain_recordings(first: Path, second: Path, *, bound: float | None = None) -> RecordingReport:
    """Compare two recordings of `shared.record`; `bound` replaces that of the dtypes.

    Raises RecordingError, one line, for a file that is no recording.
    """
    recordings = read_recording(first), read_recording(second)
    matches, unmatched = _match(*recordings, bound)
    aligned = _remembered([_align(*match, recordings, bound) for match in matches])
    by_name = {(a.first.step, a.first.name): a for a in aligned}
    pairs = tuple(_compare(a, by_name) for a in aligned)
    disagreeing = {(p.step, p.first) for p in pairs if not p.agrees}
    evidence = _Evidence(by_name, disagreeing)
    return RecordingReport(
        paths=(str(first), str(second)),
        frameworks=(recordings[0].framework, recordings[1].framework),
        pairs=pairs,
        parting=next((i for i, p in enumerate(pairs) if not p.agrees), None),
        traps=_merged(trap for find in _FINDERS for trap in find(evidence)),
        unmatched=unmatched,
    )


# --- which tensors belong together -----------------------------------------------------------

Same = Callable[[Recorded, Recorded], bool]


def _match(
    first: Recording, second: Recording, bound: float | None
) -> tuple[list[tuple[Recorded, Recorded, str]], tuple[str, ...]]:
    """Return the pairs in the first's order, and a text for every tensor that is in none."""
    found: dict[int, tuple[Recorded, Recorded, str]] = {}
    texts: list[str] = []
    ways: tuple[tuple[str, Same], ...] = (
        ("name", lambda a, b: a.name == b.name),
        ("similar name", lambda a, b: _plain_name(a.name) == _plain_name(b.name)),
        ("value", lambda a, b: _same_numbers(a, b, _bound(a, b, (first, second), bound))),
    )
    for step in sorted({t.step for r in (first, second) for t in r.tensors}):
        mine, theirs = ([t for t in r.tensors if t.step == step] for r in (first, second))
        for how, same in ways:
            for a, b in _unique_pairs(mine, theirs, same):
                found[id(a)] = (a, b, how)
            taken = {id(t) for match in found.values() for t in match[:2]}
            mine, theirs = ([t for t in ts if id(t) not in taken] for ts in (mine, theirs))
        by_value = ways[-1][1]
        texts += [_unmatched_text("first", a, [b for b in theirs if by_value(a, b)]) for a in mine]
        texts += [_unmatched_text("second", b, [a for a in mine if by_value(a, b)]) for b in theirs]
    return [found[id(t)] for t in first.tensors if id(t) in found], tuple(texts)


def _unique_pairs(
    mine: list[Recorded], theirs: list[Recorded], same: Same
) -> list[tuple[Recorded, Recorded]]:
    """Return the pairs of which each is the only one that is the same as the other."""
    partners = {id(a): [b for b in theirs if same(a, b)] for a in mine}
    counts: dict[int, int] = {}
    for b in itertools.chain.from_iterable(partners.values()):
        counts[id(b)] = counts.get(id(b), 0) + 1
    return [
        (a, partners[id(a)][0])
        for a in mine
        if len(partners[id(a)]) == 1 and counts[id(partners[id(a)][0])] == 1
    ]


def _plain_name(name: str) -> str:
    """Return a name without case, wrappers' prefixes and frameworks' suffixes."""
    plain = name.lower().replace(".", "/")
    for prefix in ("_orig_mod/", "module/", "model/", "params/"):
        plain = plain.removeprefix(prefix)
    return plain.removesuffix(":0").removesuffix("/value")


def _same_numbers(a: Recorded, b: Recorded, bound: float) -> bool:
    """Tell whether two tensors hold the same several numbers, in whatever order."""
    if a.array.size != b.array.size or np.ptp(a.array.astype(np.float64)) == 0.0:
        return False
    return relative_l2(np.sort(b.array, axis=None), np.sort(a.array, axis=None)) <= bound


def _unmatched_text(side: str, tensor: Recorded, candidates: list[Recorded]) -> str:
    text = f"{tensor.name!r} of step {tensor.step} is in the {side} recording only"
    if not candidates:
        return text
    names = ", ".join(repr(c.name) for c in candidates[:4])
    return f"{text} by name; by its numbers it could be any of: {names}"


def _bound(
    a: Recorded, b: Recorded, recordings: tuple[Recording, Recording], bound: float | None
) -> float:
    """Return the bound of the coarser dtype of two tensors; whole numbers must be equal."""
    dtypes = {_dtype(t, r) for t, r in zip((a, b), recordings, strict=True)}
    floats = [d for d in BOUNDS if d in dtypes]
    if not floats:
        return 0.0
    return BOUNDS[floats[0]] if bound is None else bound


def _dtype(tensor: Recorded, recording: Recording) -> str:
    """Return a tensor's dtype, for a Python number the coarsest one of its whole recording."""
    if tensor.dtype != PYTHON_NUMBER:
        return tensor.dtype
    held = {t.dtype for t in recording.tensors}
    return next((d for d in BOUNDS if d in held), "float64")


# --- bringing the second's axes into the first's order ---------------------------------------


@dataclass(frozen=True)
class Arrangement:
    """How the second tensor becomes one of the first's shape.

    Its axes in another order, then `flipped` axes turned round, then one axis that runs over
    (a, b) made to run over (b, a), then a reshape. `inverse`: the first has more axes, and `axes`
    are what would have to be done to it. `in_memory`: a plain reshape, the numbers as they lie.
    """

    axes: tuple[int, ...]
    flipped: tuple[int, ...] = ()
    refold: tuple[int, int, int] | None = None
    inverse: bool = False
    in_memory: bool = False

    def apply(self, array: Array, shape: tuple[int, ...]) -> Array:
        """Return the array in the first's `shape`."""
        if self.in_memory:
            return array.reshape(shape)
        if self.inverse:
            arranged = array.reshape([shape[a] for a in self.axes])
            return arranged.transpose(np.argsort(self.axes))
        arranged = np.flip(array.transpose(self.axes), self.flipped)
        if self.refold is not None:
            axis, a, b = self.refold
            before, after = arranged.shape[:axis], arranged.shape[axis + 1 :]
            arranged = arranged.reshape(*before, a, b, *after).swapaxes(axis, axis + 1)
        return arranged.reshape(shape)

    @property
    def is_plain(self) -> bool:
        """True for an order of axes and nothing else."""
        return not self.flipped and self.refold is None and not self.in_memory

    def describe(self) -> str:
        """Return what was done, for a reader."""
        if self.in_memory:
            return "reshaped, its numbers in the order in which they lie"
        turned = self.axes != tuple(range(len(self.axes)))
        texts = []
        if turned:
            texts.append(f"axes {self.axes}" + (" of the first" if self.inverse else ""))
        if self.flipped:
            texts.append(f"axes {self.flipped} turned round")
        if self.refold is not None:
            texts.append(_refold_text(*self.refold))
        return ", ".join(texts) or "as it is"


def _refold_text(axis: int, a: int, b: int) -> str:
    second, first = "CHW", "HWC"  # a is the channels: b alone is a square of pixels
    if math.isqrt(a) ** 2 == a and math.isqrt(b) ** 2 != b:
        second, first = first, second
    elif (math.isqrt(a) ** 2 == a) == (math.isqrt(b) ** 2 == b):
        return f"axis {axis} runs over {a} x {b} there, {b} x {a} here (CHW against HWC)"
    return f"axis {axis} runs over {a} x {b} there ({second}), {b} x {a} here ({first})"


@dataclass(frozen=True)
class _Aligned:
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


def _align(
    a: Recorded,
    b: Recorded,
    matched_by: str,
    recordings: tuple[Recording, Recording],
    bound: float | None,
) -> _Aligned:
    limit = _bound(a, b, recordings, bound)
    dtypes = [_dtype(t, r) for t, r in zip((a, b), recordings, strict=True)]
    dtype = next((d for d in BOUNDS if d in dtypes), dtypes[0])
    notes = [f"recorded as {d}" for d in dict.fromkeys(dtypes) if d in ("bfloat16", "float16")]
    chosen, misplaced = None, None
    if a.layout and b.layout and set(a.layout) == set(b.layout):
        chosen, misplaced = _declared(a, b, limit)
    elif a.layout and b.layout and a.array.ndim == b.array.ndim:
        notes.append(f"layouts {a.layout} and {b.layout} share no letters; went by the values")
    if chosen is None and misplaced is None:
        chosen, more = _by_value(a, b, limit)
        notes += more
    array = None if chosen is None else chosen.apply(b.array, a.array.shape)
    fits = array is not None and _fits(array, a.array, limit)
    return _Aligned(a, b, matched_by, array, chosen, limit, dtype, fits, tuple(notes), misplaced)


def _remembered(aligned: list[_Aligned]) -> list[_Aligned]:
    """Arrange what no longer fits as the same parameter, or its gradient or moment, once did."""
    known: dict[str, Arrangement] = {}
    result = []
    for x in aligned:
        name = x.first.name
        for part in ("/gradient", "/m", "/v"):
            name = name.removesuffix(part)
        if x.fits and x.arrangement is not None:
            known.setdefault(name, x.arrangement)
        elif name in known and x.first.array.size == x.second.array.size and x.misplaced is None:
            array = known[name].apply(x.second.array, x.first.array.shape)
            x = dataclasses.replace(x, array=array, arrangement=known[name], notes=())
        result.append(x)
    return result


def _fits(array: Array, first: Array, bound: float) -> bool:
    if array.shape != first.shape:
        return False
    return np.array_equal(array, first, equal_nan=True) or relative_l2(array, first) <= bound


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
    elif _fits(b.array.transpose(axes), a.array, bound):
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
    if _same_numbers(a, b, bound) and not _is_uniform(a.array):
        notes = ["the same numbers, in an order that no order of axes, flip or flattening explains"]
    plain = [x for x in _arrangements(a, b) if x.is_plain]
    if not plain:
        return None, [*notes, f"shapes {a.array.shape} and {b.array.shape} do not fit"]
    if len(plain) == 1:
        return plain[0], notes
    return _most_alike(a, b, plain, notes)


def _most_alike(
    a: Recorded, b: Recorded, plain: list[Arrangement], notes: list[str]
) -> tuple[Arrangement, list[str]]:
    """Return the order of axes under which two different tensors are most correlated."""
    alike = [abs(_correlation(x.apply(b.array, a.array.shape), a.array)) for x in plain]
    best = int(np.argmax(alike))
    others = [value for i, value in enumerate(alike) if i != best]
    as_it_is = plain[0].describe() == "as it is"
    needed, lead = (0.99, 0.1) if as_it_is and best != 0 else (0.3, 0.1)
    if alike[best] >= needed and alike[best] - max(others) >= lead:
        return plain[best], notes
    text = f"{len(plain)} orders of the axes fit the shapes, none the values"
    return plain[0], [*notes, f"{text}; compared {plain[0].describe()}"]


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
    for candidate in _arrangements(a, b):
        if is_uniform and not candidate.is_plain:
            continue
        arranged = candidate.apply(y, x.shape)
        with np.errstate(invalid="ignore"):
            apart = np.abs(np.asarray(arranged[sample], np.float64) - x[sample])
        if not (apart > limit).any() and _fits(arranged, x, bound):
            found.append(candidate)
    return found


def _arrangements(a: Recorded, b: Recorded) -> Iterator[Arrangement]:
    """Yield every arrangement of b that has the shape of a, the simplest first."""
    x, y = a.array.shape, b.array.shape
    if math.prod(x) != math.prod(y):
        return
    if len(x) != len(y):
        yield from _merging(x, y)
        return
    plain = list(_orders(x, y))
    yield from plain
    groups = _spatial_axes(a)
    yield from (dataclasses.replace(p, flipped=axes) for p in plain for axes in groups)
    if len(x) <= 2:
        for axis, n in enumerate(x):
            folds = [(axis, d, n // d) for d in range(2, n // 2 + 1) if n % d == 0]
            yield from (dataclasses.replace(p, refold=f) for p in plain for f in folds)
    if x != y:
        yield Arrangement(tuple(range(len(y))), in_memory=True)


def _orders(x: tuple[int, ...], y: tuple[int, ...]) -> Iterator[Arrangement]:
    """Yield the orders of y's axes that give the shape x; an axis of one number does not count."""
    identity = tuple(range(len(y)))
    seen = set()
    for axes in itertools.permutations(identity) if len(y) <= _MAXIMUM_AXES else [identity]:
        key = tuple(axis for axis in axes if y[axis] > 1)
        if tuple(y[axis] for axis in axes) == x and key not in seen:
            seen.add(key)
            yield Arrangement(axes)


def _merging(x: tuple[int, ...], y: tuple[int, ...]) -> Iterator[Arrangement]:
    """Yield the orders of the axes of whichever has more that merge into the other's shape."""
    inverse = len(x) > len(y)
    longer, shorter = (x, y) if inverse else (y, x)
    if len(longer) > _MAXIMUM_AXES:
        return
    ends = set(itertools.accumulate(shorter, initial=1, func=lambda p, q: p * q))
    seen = set()
    for axes in itertools.permutations(range(len(longer))):
        key = tuple(axis for axis in axes if longer[axis] > 1)
        shape = (longer[axis] for axis in axes)
        if key not in seen and ends <= set(
            itertools.accumulate(shape, initial=1, func=lambda p, q: p * q)
        ):
            seen.add(key)
            yield Arrangement(axes, inverse=inverse)


def _spatial_axes(a: Recorded) -> list[tuple[int, ...]]:
    """Return the groups of axes that may be the height and width of a kernel."""
    shape, rank = a.array.shape, a.array.ndim
    if a.layout is not None:
        letters = set("DHW") if set("IO") <= set(a.layout) else set()
        groups = [tuple(i for i, letter in enumerate(a.layout) if letter in letters)]
    elif 3 <= rank <= _MAXIMUM_AXES:
        groups = [tuple(range(rank - 2)), tuple(range(2, rank))]
    else:
        groups = []
    # A kernel is small; turning an image round explains nothing.
    return [g for g in groups if g and all(1 < shape[axis] <= 11 for axis in g)]


# --- how far they are apart ------------------------------------------------------------------


def _compare(aligned: _Aligned, by_name: dict[tuple[int, str], _Aligned]) -> Pair:
    a, b, array = aligned.first, aligned.second, aligned.array
    arrangement = "none" if aligned.arrangement is None else aligned.arrangement.describe()
    if a.layout and b.layout and set(a.layout) == set(b.layout) and a.layout != b.layout:
        arrangement = f"{b.layout} as {a.layout}"
        if aligned.arrangement is not None and not aligned.arrangement.is_plain:
            in_order = dataclasses.replace(aligned.arrangement, axes=tuple(range(a.array.ndim)))
            arrangement += f", {in_order.describe()}"
    notes = list(aligned.notes)
    numbers: dict[str, Any] = dict.fromkeys(("relative_l2", "max_abs", "ulp"), math.nan)
    numbers |= {"worst": (), "worst_values": (math.nan, math.nan)}
    agrees = aligned.fits
    if array is not None:
        numbers = _differences(a.array, array, aligned.dtype)
        yardstick = _kernel_beside(a, by_name)
        if not agrees and yardstick is not None:
            apart = np.linalg.norm(np.asarray(array, np.float64) - a.array)
            agrees = bool(apart <= aligned.bound * np.linalg.norm(yardstick))
            notes += ["rounding beside its kernel's"] if agrees else []
    return Pair(
        step=a.step,
        first=a.name,
        second=b.name,
        matched_by=aligned.matched_by,
        arrangement=arrangement,
        dtype=aligned.dtype,
        bound=aligned.bound,
        agrees=agrees,
        notes=tuple(notes),
        **numbers,
    )


def _differences(first: Array, second: Array, dtype: str) -> dict[str, Any]:
    x, y = (np.asarray(v, np.float64) for v in (first, second))
    with np.errstate(invalid="ignore"):
        apart = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
    place = np.unravel_index(np.argmax(np.where(np.isnan(apart), np.inf, apart)), apart.shape)
    worst = tuple(int(i) for i in place)
    values = float(x[worst]), float(y[worst])
    truth = Fraction(values[0]) if math.isfinite(values[0]) else values[0]
    try:
        ulp = ulp_error(values[1], truth, dtype if dtype in BOUNDS else "float64")
    except OverflowError:  # beside a number next to 0
        ulp = math.inf
    return {
        "relative_l2": relative_l2(y, x) if apart.any() else 0.0,
        "max_abs": float(apart[worst]),
        "ulp": ulp,
        "worst": worst,
        "worst_values": values,
    }


def _kernel_beside(a: Recorded, by_name: dict[tuple[int, str], _Aligned]) -> Array | None:
    """Return the kernel's numbers beside a bias', which a batch normalisation may take away."""
    if "bias" not in a.name:
        return None
    beside = (by_name.get((a.step, a.name.replace("bias", kernel))) for kernel in KERNELS)
    return next((x.first.array for x in beside if x is not None), None)


# --- the traps: what each side by itself is explained by -------------------------------------

Explanation = tuple[tuple[str, Any], ...]  # a value for each field


class _Evidence:
    """The paired numbers of both sides, float64 in the first's axes, by step and first's name."""

    def __init__(
        self, by_name: dict[tuple[int, str], _Aligned], disagreeing: set[tuple[int, str]]
    ) -> None:
        self.by_name = by_name
        self.disagreeing = disagreeing
        self.sides: tuple[dict[tuple[int, str], Array], ...] = (
            {k: np.asarray(a.first.array, np.float64) for k, a in by_name.items()},
            {k: np.asarray(a.array, np.float64) for k, a in by_name.items() if a.array is not None},
        )

    def with_suffix(self, *suffixes: str) -> Iterator[tuple[int, str]]:
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


# Field → its row in docs/porting.md, where it has one
_ANCHORS: dict[str, str] = {
    "loss_reduction": "loss-reduction",
    "discriminator_loss_scale": "discriminator-loss-half",
    "lsgan_scale": "lsgan-half",
    "flatten_order": "flatten-order",
    "conv_kernel": "conv-transpose-flip",
    "conv_transpose_kernel": "conv-transpose-flip",
    "padding_alignment": "same-padding",
    "batch_norm_epsilon": "batch-norm-epsilon",
    "batch_norm_mode": "batch-norm-frozen",
    "batch_norm_momentum": "batch-norm-momentum",
    "batch_norm_running_variance": "batch-norm-variance",
    "batch_norm_statistics": "batch-norm-not-threaded",
    "adam_beta1": "adam-beta1",
    "adam_epsilon": "adam-epsilon-value",
    "adam_epsilon_placement": "adam-epsilon-placement",
}


_FIELDS = {field.name for field in dataclasses.fields(Conventions)}


def _trap(
    field: str, first: Any, second: Any, where: tuple[str, ...], certain: bool = True
) -> Trap:
    """Return a trap; what has no field of Conventions is said in the two values."""
    if field not in _FIELDS:
        return Trap(None, None, f"{field} {first}", f"{field} {second}", where, certain)
    return Trap(field, _ANCHORS.get(field), str(first), str(second), where, certain)


def _fewest_differences(
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
    if not changes:
        return []
    fewest = min(len(change) for change in changes)
    smallest = {change for change in changes if len(change) == fewest}
    settings = {change for change in smallest if not any(f.startswith("_") for f, _, _ in change)}
    certain = len(settings) == 1
    return [
        _trap(*values, where, certain) for change in sorted(settings, key=str) for values in change
    ]


def _merged(traps: Iterable[Trap]) -> tuple[Trap, ...]:
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


# --- layouts ---------------------------------------------------------------------------------


def _layout_traps(evidence: _Evidence) -> Iterator[Trap]:
    for (step, name), aligned in evidence.by_name.items():
        chosen = aligned.misplaced or aligned.arrangement
        if chosen is None or not (aligned.fits or aligned.misplaced):
            continue
        is_kernel = name.rsplit("/", 1)[-1] in KERNELS
        if chosen.in_memory:
            yield _reshaped(aligned, is_kernel)
        elif is_kernel and chosen.flipped and any(s >= step for s, _ in evidence.disagreeing):
            # Right where that side's operation turns it back: something else must disagree too.
            yield _trap(_kernel_field(name), "as_stored", "flipped", (name,), certain=False)
        elif aligned.misplaced is not None:
            yield _other_axes(aligned, aligned.misplaced, is_kernel)
        elif name.endswith("/input") and aligned.first.array.ndim == 2:
            yield from _flatten_order(evidence, step, name.removesuffix("/input"), chosen)


def _kernel_field(name: str) -> str:
    return "conv_transpose_kernel" if "transpose" in name.lower() else "conv_kernel"


def _reshaped(aligned: _Aligned, is_kernel: bool) -> Trap:
    """A tensor whose shape was changed where its axes should have been."""
    name = aligned.first.name
    if is_kernel or aligned.first.array.ndim != 4:
        texts = "its axes in their order", "reshaped instead of transposed"
        return Trap(None, None, *texts, (name,))
    orders = ("chw", "hwc") if (aligned.second.layout or "").endswith("C") else ("hwc", "chw")
    return dataclasses.replace(_trap("flatten_order", *orders, (name,)), anchor="reshape-order")


def _other_axes(aligned: _Aligned, fits: Arrangement, is_kernel: bool) -> Trap:
    """A tensor whose declared layout is not the one that its values have."""
    name, declared = aligned.first.name, aligned.first.layout or ""
    # Letter of the first's axis i, where the values say the second's axis fits.axes[i] belongs.
    letters = dict(zip(fits.axes, declared, strict=False))
    really = "".join(letters.get(i, "?") for i in range(len(declared)))
    swapped = {x for x, y in zip(really, aligned.second.layout or "", strict=False) if x != y}
    if is_kernel and swapped == {"H", "W"} and fits.is_plain:
        return _trap(_kernel_field(name), "as_stored", "transposed", (name,))
    return Trap(None, None, f"layout {declared}", f"{aligned.second.layout}, is {really}", (name,))


def _flatten_order(
    evidence: _Evidence, step: int, layer: str, features: Arrangement
) -> Iterator[Trap]:
    """Features in another order before a kernel whose rows are in the same, or the reverse."""
    names = [f"{layer}/{kernel}" for kernel in KERNELS]
    kernel = next((evidence.by_name[step, n] for n in names if (step, n) in evidence.by_name), None)
    output = step, f"{layer}/output"
    agrees = output in evidence.by_name and output not in evidence.disagreeing
    if kernel is None or kernel.arrangement is None or not kernel.fits or agrees:
        return
    rows = kernel.arrangement.refold
    if (features.refold is None) != (rows is None):
        where = (f"{layer}/input", kernel.first.name)
        first, second = _orders_of(features.refold or rows)
        yield _trap("flatten_order", first, second, where)


def _orders_of(refold: tuple[int, int, int] | None) -> tuple[str, str]:
    assert refold is not None
    return ("chw", "hwc") if "there (HWC)" in _refold_text(*refold) else ("hwc", "chw")


# --- constant factors ------------------------------------------------------------------------

# What moves by steps, in which a factor means nothing: a first update of Adam is ± one rate.
_STATE = (*KERNELS, "bias", "scale", "m", "v", "mean")


def _factor_traps(evidence: _Evidence) -> Iterator[Trap]:
    sizes = _batch_sizes(evidence)
    for step, name in evidence.by_name:
        if (step, name) not in evidence.disagreeing or name.rsplit("/", 1)[-1] in _STATE:
            continue
        first, second = (side.get((step, name)) for side in evidence.sides)
        bound = evidence.bound(step, name)
        if first is None or second is None or not first.any() or bound > 1e-4:
            continue
        factor = float(np.vdot(first, second) / np.vdot(first, first))
        if relative_l2(factor * first, second) <= bound:
            yield from _named_factor(name, factor, bound, sizes)


def _batch_sizes(evidence: _Evidence) -> dict[str, set[int]]:
    """Return the numbers of images, and of numbers that a channel's statistics are made of."""
    batches, counts = set(), set()
    for aligned in evidence.by_name.values():
        shape, layout = aligned.first.array.shape, aligned.first.layout
        if layout is not None and "N" in layout:
            batches.add(shape[layout.index("N")])
        if aligned.first.name.endswith("/input") and len(shape) >= 2:
            counts |= {math.prod(shape) // shape[axis] for axis in (1, -1)}
    return {"batch": batches, "count": counts}


def _named_factor(
    name: str, factor: float, bound: float, sizes: dict[str, set[int]]
) -> Iterator[Trap]:
    """Yield the readings of second = factor x first that are known."""

    def is_near(value: float) -> bool:
        return abs(factor - value) <= 4 * bound * abs(value)

    where = (name,)
    readings: list[tuple[str, tuple[str, str]]] = []
    batches = sizes["batch"] or {n for n in (round(factor), round(1 / factor)) if n >= 3}
    for n in batches - {1}:
        if is_near(n) or is_near(1 / n):
            readings.append(("loss_reduction", ("mean", "sum") if is_near(n) else ("sum", "mean")))
    if is_near(2.0) or is_near(0.5):
        values = ("0.5", "1.0") if is_near(2.0) else ("1.0", "0.5")
        readings.append(("lsgan_scale", values))
        if not name.startswith("generator"):
            readings.append(("discriminator_loss_scale", values))
    if name.endswith(("/var", "variance")):
        for n in sizes["count"] - {1}:
            if is_near(n / (n - 1)) or is_near((n - 1) / n):
                names = ("biased", "unbiased") if factor > 1 else ("unbiased", "biased")
                readings.append(("batch_norm_running_variance", names))
    if is_near(-1.0):
        yield Trap(None, "generator-objective", "the sign", "turned", where)
    for field, values in readings:
        yield _trap(field, *values, where, certain=len(readings) == 1)


# --- convolutions: input, kernel and output recorded ------------------------------------------


def _convolution_traps(evidence: _Evidence) -> Iterator[Trap]:
    for step, layer in evidence.with_suffix("/output"):
        bound = evidence.bound(step, f"{layer}/output")
        explained = [_convolution(side, step, layer, bound) for side in evidence.sides]
        yield from _fewest_differences(explained[0], explained[1], (f"{layer}/output",))


def _recently(
    side: dict[tuple[int, str], Array], step: int, layer: str, *names: str
) -> list[Array]:
    """Return a layer's parameter of this step and the last: a forward pass may be before both."""
    keys = [(s, f"{layer}/{name}") for s in (step, step - 1) for name in names]
    return [side[key] for key in keys if key in side]


def _convolution(
    side: dict[tuple[int, str], Array], step: int, layer: str, bound: float
) -> set[Explanation]:
    """Return every setting under which the recorded input and kernel give the recorded output."""
    x, y = (side.get((step, f"{layer}/{name}")) for name in ("input", "output"))
    kernels = [k for k in _recently(side, step, layer, *KERNELS) if k.ndim == 4]
    if x is None or y is None or x.ndim != 4 or y.ndim != 4 or not kernels:
        return set()
    found: set[Explanation] = set()
    biases = _recently(side, step, layer, "bias") or [np.zeros(1)]
    # Two images tell as much as all.
    for data, order in itertools.product(((0, 1, 2, 3), (0, 2, 3, 1)), _KERNEL_ORDERS):
        images, expected = x[:2].transpose(data), y[:2].transpose(data)
        for kernel, bias in itertools.product(kernels, biases):
            stored = kernel.transpose(order)
            if bias.size not in (1, expected.shape[-1]):
                continue
            for explanation, result in _convolutions(images, stored, expected.shape):
                if relative_l2(result + bias, expected) <= bound:
                    found.add((*explanation, ("_layout", (data, order))))
    return found


# To height, width and the two kinds of channels, in either order.
_KERNEL_ORDERS = ((0, 1, 2, 3), (0, 1, 3, 2), (2, 3, 0, 1), (2, 3, 1, 0))
_ALIGNMENTS = ("centred", "before", "after")
_TURNED: dict[str, Callable[[Array], Array]] = {
    "as_stored": lambda kernel: kernel,
    "flipped": lambda kernel: kernel[::-1, ::-1],
    "transposed": lambda kernel: kernel.swapaxes(0, 1),
}


def _convolutions(
    x: Array, kernel: Array, shape: tuple[int, ...]
) -> Iterator[tuple[Explanation, Array]]:
    """Yield the result of every convolution of x and an HWIO or HWOI kernel of a given shape."""
    size, taps = x.shape[1], kernel.shape[0]
    for stride, padding in itertools.product(range(1, 5), range(taps)):
        kinds = []
        if kernel.shape[2] == x.shape[3] and (size + 2 * padding - taps) // stride + 1 == shape[1]:
            kinds.append(("conv_kernel", layers.conv_forward))
        transposed_size = stride * (size - 1) + taps - 2 * padding
        if kernel.shape[3] == x.shape[3] and transposed_size == shape[1]:
            kinds.append(("conv_transpose_kernel", layers.conv_transpose_forward))
        alignments = _ALIGNMENTS if padding else _ALIGNMENTS[:1]
        for (field, run), turn, alignment in itertools.product(kinds, _TURNED, alignments):
            result = run(x, _TURNED[turn](kernel), stride, padding, alignment)[0]
            if result.shape == shape:
                settings = (("_kind", field), ("_stride", (stride, padding)))
                yield ((field, turn), ("padding_alignment", alignment), *settings), result


# --- batch normalisation -----------------------------------------------------------------------

_BATCH_NORM_EPSILONS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-8)


def _batch_norm_traps(evidence: _Evidence) -> Iterator[Trap]:
    for step, layer in evidence.with_suffix("/output"):
        bound = evidence.bound(step, f"{layer}/output")
        explained = [_normalisation(side, step, layer, bound) for side in evidence.sides]
        yield from _fewest_differences(explained[0], explained[1], (f"{layer}/output",))
    for step, layer in evidence.with_suffix("/mean", "/var"):
        name = next(n for n in ("mean", "var") if (step, f"{layer}/{n}") in evidence.by_name)
        bound = evidence.bound(step, f"{layer}/{name}")
        moves = [_running_move(side, step, layer, bound) for side in evidence.sides]
        yield from _moved_differently(moves[0], moves[1], (f"{layer}/mean", f"{layer}/var"))


def _normalisation(
    side: dict[tuple[int, str], Array], step: int, layer: str, bound: float
) -> set[Explanation]:
    """Return every epsilon and kind of statistics that give the recorded output."""
    x, y = (side.get((step, f"{layer}/{name}")) for name in ("input", "output"))
    if x is None or y is None or x.shape != y.shape or x.ndim < 2:
        return set()
    scales = _recently(side, step, layer, "scale")
    running = list(
        zip(_recently(side, step, layer, "mean"), _recently(side, step, layer, "var"), strict=False)
    )
    if not scales and not running:
        return set()
    found: set[Explanation] = set()
    biases = _recently(side, step, layer, "bias") or [np.zeros(1)]
    for axis, scale, bias in itertools.product((-1, 1), scales or [np.ones(1)], biases):
        inputs, expected = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
        if not all(p.size in (1, inputs.shape[-1]) for p in (scale, bias)):
            continue
        for epsilon in _BATCH_NORM_EPSILONS:
            results = [("batch", layers.batch_norm_forward(inputs, scale, bias, epsilon)[0])]
            for mean, var in (r for r in running if r[0].size == inputs.shape[-1]):
                y_running = layers.batch_norm_inference(inputs, scale, bias, mean, var, epsilon)[0]
                results.append(("running", y_running))
            for mode, result in results:
                if relative_l2(result, expected) <= bound:
                    found.add((("batch_norm_epsilon", epsilon), ("batch_norm_mode", mode)))
    return found


def _running_move(
    side: dict[tuple[int, str], Array], step: int, layer: str, bound: float
) -> set[Explanation]:
    """Return the weight of the new statistics and the variance's estimator, where one mix fits."""
    x = side.get((step, f"{layer}/input"))
    keys = [(s, f"{layer}/{name}") for s in (step - 1, step) for name in ("mean", "var")]
    if x is None or x.ndim < 2 or any(key not in side for key in keys):
        return set()
    before, after = (np.concatenate([side[k] for k in pair]) for pair in (keys[:2], keys[2:]))
    found: set[Explanation] = set()
    for axis, estimator in itertools.product((-1, 1), ("biased", "unbiased")):
        rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
        if 2 * rows.shape[1] != before.size or len(rows) < 2:
            continue
        variance = rows.var(axis=0, ddof=int(estimator == "unbiased"))
        way = np.concatenate([rows.mean(axis=0), variance]) - before
        weight = float(way @ (after - before) / (way @ way)) if way.any() else 0.0
        if relative_l2(before + weight * way, after) <= bound:
            momentum = abs(round(weight, 4))
            found.add(
                (("batch_norm_momentum", momentum), ("batch_norm_running_variance", estimator))
            )
    return found


def _moved_differently(
    first: set[Explanation], second: set[Explanation], where: tuple[str, ...]
) -> list[Trap]:
    """Compare two moves of the running statistics; one of weight 0 is none."""
    stand_still = [bool(side) and all(x[0][1] == 0.0 for x in side) for side in (first, second)]
    if first and second and stand_still[0] != stand_still[1]:
        values = ["never" if still else "every_pass" for still in stand_still]
        return [_trap("batch_norm_statistics", values[0], values[1], where)]
    return _fewest_differences(first, second, where)


# --- Adam: parameter, gradient and moments recorded at the end of every step -------------------

_ADAM_EPSILONS = (1e-3, 1e-5, 1e-6, 1e-7, 1e-8)
_PLACES = ("outside", "before_correction", "inside_root")
_MAXIMUM_NUMBERS = 2**16  # of a parameter: as many tell as much as all


@dataclass(frozen=True)
class _Update:
    """One recorded update of one parameter: its `number` counts from 1, 0 is not known."""

    number: int
    parameter: tuple[Array, Array]
    gradient: Array
    m: tuple[Array, Array]
    v: tuple[Array, Array]


def _adam_traps(evidence: _Evidence) -> Iterator[Trap]:
    parts = ("", "/gradient", "/m", "/v")
    changed = {n.removesuffix(p) for _, n in evidence.disagreeing for p in parts if n.endswith(p)}
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for _, name in evidence.by_name):
        if name in changed and all(
            any(n == name + part for _, n in evidence.by_name) for part in parts
        ):
            groups.setdefault(name.split("/", 1)[0], []).append(name)
    for network, names in groups.items():
        updates = [[_updates(side, name) for name in names] for side in evidence.sides]
        bound = max(evidence.bound(*k) for k in evidence.by_name if k[1] in names)
        betas = [_common(_betas(u, bound) for u in side) for side in updates]
        yield from _fewest_differences(betas[0], betas[1], tuple(names))
        settings = [
            _common(_settings(u, b, bound, network) for u in side for b in found)
            for side, found in zip(updates, betas, strict=True)
        ]
        yield from _fewest_differences(settings[0], settings[1], tuple(names))


def _common(explained: Iterable[set[Explanation]]) -> set[Explanation]:
    """Return the explanations that hold for all parameters of one optimizer that have any."""
    sets = [explanations for explanations in explained if explanations]
    return set.intersection(*sets) if sets else set()


def _updates(side: dict[tuple[int, str], Array], name: str) -> list[_Update]:
    """Return the recorded updates of a parameter; its moments before the first may be left out."""
    size = next((a.size for (_, n), a in side.items() if n == name), 1)
    thin = slice(None, None, 1 + size // _MAXIMUM_NUMBERS)
    found: list[_Update] = []
    started = False
    for step in sorted(s for s, n in side if n == name):
        keys = [(step - 1, name), *((step, name + part) for part in ("", "/gradient", "/m", "/v"))]
        if any(key not in side for key in keys):
            continue
        before, after, gradient, m, v = (np.ravel(side[key])[thin] for key in keys)
        zeros = np.zeros(size)
        m0, v0 = (np.ravel(side.get((step - 1, name + p), zeros))[thin] for p in ("/m", "/v"))
        started = started or (step == 1 and not m0.any() and not v0.any())
        number = step if started else 0
        found.append(_Update(number, (before, after), gradient, (m0, m), (v0, v)))
    return found


def _betas(updates: list[_Update], bound: float) -> set[Explanation]:
    """Return the weights of the old moments, where the same ones explain every update."""
    found: set[Explanation] = set()
    for u in updates:
        values = []
        for (before, after), new in ((u.m, u.gradient), (u.v, np.square(u.gradient))):
            way = before - new
            beta = float(way @ (after - new) / (way @ way)) if way.any() else math.nan
            if not relative_l2(new + beta * way, after) <= bound:
                return set()
            values.append(round(beta, 4))
        found.add((("adam_beta1", values[0]), ("adam_beta2", values[1])))
    return found if len(found) == 1 else set()


def _settings(
    updates: list[_Update], betas: Explanation, bound: float, network: str
) -> set[Explanation]:
    """Return every epsilon, its place, bias correction and learning rate that fit all updates."""
    if not updates or any(u.number == 0 for u in updates):
        return set()
    change = np.concatenate([u.parameter[1] - u.parameter[0] for u in updates])
    size = np.linalg.norm(np.concatenate([u.parameter[1] for u in updates]))
    rounding = np.finfo(np.float64 if bound < 1e-8 else np.float32).eps
    # A parameter is far larger than its update, which therefore carries the parameter's rounding.
    tolerance = bound + rounding * size / np.linalg.norm(change) if change.any() else math.inf
    found: set[Explanation] = set()
    if tolerance > 1e-2:
        return found
    rate_name = f"{network}_learning_rate"
    rate_name = rate_name if rate_name in _FIELDS else "learning_rate"
    for epsilon, place, corrects in itertools.product(_ADAM_EPSILONS, _PLACES, (True, False)):
        c = Conventions().replace(adam_epsilon_placement=place, adam_bias_correction=corrects)
        step = AdamSpec(1.0, betas[0][1], betas[1][1], epsilon)
        unit = np.concatenate(
            [
                adam_update(np.zeros(1), u.gradient, (u.m[0], u.v[0]), u.number, step, c)[0]
                for u in updates
            ]
        )
        rate = float(unit @ change / (unit @ unit))
        if relative_l2(rate * unit, change) <= tolerance:
            values = (("adam_epsilon", epsilon), ("adam_epsilon_placement", place))
            shown = float(f"{rate:.3g}")
            found.add((*values, ("adam_bias_correction", corrects), (rate_name, shown)))
    return found


_FINDERS = (_layout_traps, _factor_traps, _convolution_traps, _batch_norm_traps, _adam_traps)


# --- for a reader ------------------------------------------------------------------------------


def format_report(report: RecordingReport) -> str:
    """Return the report as text for a terminal."""
    names = [f"{p} ({f})" for p, f in zip(report.paths, report.frameworks, strict=True)]
    lines = [f"first:  {names[0]}", f"second: {names[1]}", ""]
    apart = [p for p in report.pairs if not p.agrees]
    lines.append(f"{len(report.pairs)} pairs, {len(report.pairs) - len(apart)} agree")
    lines += _matching_lines(report)
    if report.parting is None:
        lines += ["", "They part nowhere." if report.pairs else "Nothing could be compared."]
    else:
        lines += ["", "The first point of parting:", *_pair_lines(report.pairs[report.parting])]
        lines += [f"then {len(apart) - 1} more:"] if len(apart) > 1 else []
        lines += [_short_line(p) for p in apart[1:9]]
        lines += ["  …"] if len(apart) > 9 else []
        lines += ["", *_trap_lines(report)]
    return "\n".join(lines)


def _matching_lines(report: RecordingReport) -> list[str]:
    lines = [
        f"  {p.second!r} was taken for {p.first!r} by {p.matched_by}"
        for p in report.pairs
        if p.matched_by != "name"
    ]
    arranged: dict[str, list[str]] = {}
    for p in report.pairs:
        for text in (p.arrangement, *p.notes):
            arranged.setdefault(text, []).append(p.first)
    for text, names in arranged.items():
        if text not in ("as it is", "none"):
            lines.append(f"  {text}: {_some(names)}")
    return [*dict.fromkeys(lines), *(f"  {text}" for text in report.unmatched)]


def _some(names: Iterable[str]) -> str:
    """Return the first names of several, each once."""
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:3]) + (f" and {len(unique) - 3} more" if len(unique) > 3 else "")


def _pair_lines(pair: Pair) -> list[str]:
    if math.isnan(pair.max_abs) and not pair.worst:
        return [f"  step {pair.step}  {pair.first}: cannot be compared"]
    first, second = pair.worst_values
    return [
        f"  step {pair.step}  {pair.first}",
        f"  relative L2 {pair.relative_l2:.2g}, bound {pair.bound:.0e} ({pair.dtype})",
        f"  worst element {pair.worst}: {first!r} and {second!r}, "
        f"{pair.max_abs:.2g} or {pair.ulp:.3g} ULP apart",
    ]


def _short_line(pair: Pair) -> str:
    return f"  step {pair.step}  {pair.first}  {pair.relative_l2:.2g}"


def _trap_lines(report: RecordingReport) -> list[str]:
    if not report.traps:
        return ["No trap that could be checked explains it; record more (docs/recordings.md)."]
    lines = ["Traps that explain it:"]
    for trap in report.traps:
        name = trap.field or "no field of Conventions"
        doubt = "" if trap.certain else "  (one of several readings)"
        row = f", docs/porting.md#{trap.anchor}" if trap.anchor else ""
        lines += [f"  {name}: first {trap.first}, second {trap.second}{row}{doubt}"]
        lines += [f"    in {_some(trap.where)}"]
    return lines
