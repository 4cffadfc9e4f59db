"""Traps that two tensors show by themselves: in another order, or a constant factor apart."""

import dataclasses
import math
from collections.abc import Iterator

from shared.explain.recordings.arrangement import Arrangement, orders_of_features
from shared.explain.recordings.evidence import Evidence, Trap, multiple, named_trap
from shared.explain.recordings.matching import KERNELS
from shared.explain.recordings.pairs import Pair
from shared.reference.comparison import relative_l2

# What moves by steps, in which a factor means nothing: a first update of Adam is ± one rate.
_STATE = (*KERNELS, "bias", "scale", "m", "v", "mean")
_LARGEST_FACTOR = 2.0**20  # no batch has more images
_COARSEST_BOUND = 1e-4  # a coarser dtype does not distinguish factors


def layout_traps(evidence: Evidence) -> Iterator[Trap]:
    """Yield what the arrangements that fit say about axes, kernels and flattened features."""
    last = max((step for step, _ in evidence.disagreeing), default=-1)
    for (step, name), pair in evidence.pairs.items():
        chosen = pair.misplaced or pair.order
        if chosen is None or not (pair.fits or pair.misplaced):
            continue
        is_kernel = name.rsplit("/", 1)[-1] in KERNELS
        if chosen.in_memory:
            yield _reshaped(pair, is_kernel)
        elif is_kernel and chosen.flipped and step <= last:
            # Right where that side's operation turns it back: something else must disagree too.
            yield named_trap(_kernel_field(name), "as_stored", "flipped", (name,), certain=False)
        elif pair.misplaced is not None:
            yield _other_axes(pair, pair.misplaced, is_kernel)
        elif name.endswith("/input") and pair.one.array.ndim == 2:
            yield from _flatten_order(evidence, step, name.removesuffix("/input"), chosen)


def _kernel_field(name: str) -> str:
    return "conv_transpose_kernel" if "transpose" in name.lower() else "conv_kernel"


def _reshaped(pair: Pair, is_kernel: bool) -> Trap:
    """A tensor whose shape was changed where its axes should have been."""
    where = (pair.one.name,)
    if is_kernel or pair.one.array.ndim != 4:
        return Trap(None, None, "its axes in their order", "reshaped instead of transposed", where)
    orders = ("chw", "hwc") if (pair.two.layout or "").endswith("C") else ("hwc", "chw")
    return dataclasses.replace(named_trap("flatten_order", *orders, where), anchor="reshape-order")


def _other_axes(pair: Pair, fits: Arrangement, is_kernel: bool) -> Trap:
    """A tensor whose declared layout is not the one that its values have."""
    where = (pair.one.name,)
    here, there = pair.one.layout or "", pair.two.layout or ""
    # Letter of the first's axis i, where the values say the second's axis fits.axes[i] belongs.
    letters = dict(zip(fits.axes, here, strict=False))
    really = "".join(letters.get(i, "?") for i in range(len(here)))
    swapped = {x for x, y in zip(really, there, strict=False) if x != y}
    if is_kernel and swapped == {"H", "W"} and fits.is_plain:
        return named_trap(_kernel_field(pair.one.name), "as_stored", "transposed", where)
    return Trap(None, None, f"layout {here}", f"{there}, is {really}", where)


def _flatten_order(
    evidence: Evidence, step: int, layer: str, features: Arrangement
) -> Iterator[Trap]:
    """Features in another order before a kernel whose rows are in the same, or the reverse."""
    keys = [(step, f"{layer}/{kernel}") for kernel in KERNELS]
    kernel = next((evidence.pairs[key] for key in keys if key in evidence.pairs), None)
    output = evidence.pairs.get((step, f"{layer}/output"))
    if kernel is None or kernel.order is None or not kernel.fits or (output and output.agrees):
        return
    refolds = [fold for fold in (features.refold, kernel.order.refold) if fold is not None]
    if len(refolds) == 1:
        first, second = orders_of_features(refolds[0]) or ("HWC", "CHW")
        where = (f"{layer}/input", kernel.one.name)
        yield named_trap("flatten_order", first.lower(), second.lower(), where)


def factor_traps(evidence: Evidence) -> Iterator[Trap]:
    """Yield the known readings of every disagreement that is one factor in all numbers."""
    sizes = _sizes(evidence)
    for step, name in evidence.pairs:
        if (step, name) not in evidence.disagreeing or name.rsplit("/", 1)[-1] in _STATE:
            continue
        first, second = (side.get((step, name)) for side in evidence.sides)
        bound = evidence.pairs[step, name].bound
        if first is None or second is None or bound > _COARSEST_BOUND:
            continue
        factor = multiple(first, second)
        is_sensible = 1 / _LARGEST_FACTOR < abs(factor) < _LARGEST_FACTOR
        if not is_sensible or not relative_l2(factor * first, second) <= bound:
            continue
        if math.isclose(factor, -1.0, rel_tol=4 * bound):
            yield Trap(None, "generator-objective", "the sign", "turned", (name,))
        larger = max(factor, 1 / factor)
        readings = [
            reading
            for expected, *reading in _readings(name, *sizes, larger)
            if math.isclose(larger, expected, rel_tol=4 * bound)
        ]
        for field, *values in readings:
            one, other = values if factor > 1 else reversed(values)
            yield named_trap(field, one, other, (name,), certain=len(readings) == 1)


def _sizes(evidence: Evidence) -> tuple[set[int], set[int]]:
    """Return the sizes of batches, and how many numbers a channel's statistics are made of."""
    batches, counts = set(), set()
    for (_, name), pair in evidence.pairs.items():
        shape, layout = pair.one.array.shape, pair.one.layout
        if layout is not None and "N" in layout:
            batches.add(shape[layout.index("N")])
        if name.endswith("/input") and len(shape) >= 2:
            counts |= {math.prod(shape) // shape[axis] for axis in (1, -1)}
    return batches, counts - {0, 1}


def _readings(
    name: str, batches: set[int], counts: set[int], factor: float
) -> Iterator[tuple[float, str, str, str]]:
    """Yield the factors above 1 that mean something: the field, its smaller and larger value."""
    guesses = {round(factor)} if factor > 2.5 else set()
    for n in (batches or guesses) - {1}:
        yield n, "loss_reduction", "mean", "sum"
    yield 2.0, "lsgan_scale", "0.5", "1.0"
    if not name.startswith("generator"):
        yield 2.0, "discriminator_loss_scale", "0.5", "1.0"
    if name.endswith(("/var", "variance")):
        for n in counts:
            yield n / (n - 1), "batch_norm_running_variance", "biased", "unbiased"
