"""Traps that tensors show by themselves: another order, a constant factor, passes too many."""

import dataclasses
import math
from collections.abc import Iterator

from shared.explain.catalogue import FIXES, KNOWN_NUMBERS
from shared.explain.recordings.arrangement import Arrangement, orders_of_features
from shared.explain.recordings.evidence import Evidence, Trap, multiple, named_trap
from shared.explain.recordings.matching import KERNELS, is_of_kernel
from shared.explain.search import LEAST_NUMBERS
from shared.reference.comparison import relative_l2

# What moves by steps, in which a factor means nothing: a first update of Adam is ± one rate.
_STATE = (*KERNELS, "bias", "scale", "m", "v", "mean")
_LARGEST_FACTOR = 2.0**20
_COARSEST_BOUND = 1e-4  # a coarser dtype does not distinguish factors
_BATCHES = ("input", "images", "latents", "scores", "logits")


def pass_traps(evidence: Evidence) -> Iterator[Trap]:
    """Yield the networks that one recording alone has run more often in a step."""
    for number, side in enumerate(evidence.sides):
        names = [key[1] for key in side if key not in evidence.pairs]
        for network in dict.fromkeys(name.split("/", 1)[0] for name in names):
            own = tuple(dict.fromkeys(n for n in names if n.startswith(f"{network}/")))
            most = max(int(name.rsplit("/", 1)[1]) for name in own)
            texts = f"{network} once a step", f"{network} {most} times a step"
            row = "generator-batch-forward" if network.startswith("g") else None
            yield Trap(None, row, texts[1 - number], texts[number], own)


def layout_traps(evidence: Evidence) -> Iterator[Trap]:
    """Yield what the arrangements that fit show about axes, kernels and flattened features."""
    for (step, name), pair in evidence.pairs.items():
        where, chosen = (name,), pair.misplaced or pair.order
        if chosen is None or not (pair.fits or pair.misplaced):
            continue
        kernel = "conv_transpose_kernel" if "transpose" in name.lower() else "conv_kernel"
        is_kernel = is_of_kernel(name)
        if chosen.in_memory and not is_kernel and pair.one.array.ndim == 4:
            orders = ("chw", "hwc") if (pair.two.layout or "").endswith("C") else ("hwc", "chw")
            trap = named_trap("flatten_order", *orders, where)
            yield dataclasses.replace(trap, anchor="reshape-order")
        elif chosen.in_memory:
            texts = "its axes in their order", "reshaped instead of transposed"
            yield Trap(None, None, *texts, where)
        elif chosen.flipped and is_kernel:
            if _has_effect(evidence, step, name):
                yield named_trap(kernel, "as_stored", "flipped", where, certain=False)
        elif chosen.flipped and pair.misplaced:
            yield named_trap("image_channels", "as_stored", "reversed", where)
        elif pair.misplaced:
            here, there = pair.one.layout or "", pair.two.layout or ""
            # Letter of the first's axis i, where by the values the second's axis axes[i] belongs.
            letters = dict(zip(chosen.axes, here, strict=False))
            really = "".join(letters.get(i, "?") for i in range(len(here)))
            swapped = {x for x, y in zip(really, there, strict=False) if x != y}
            if is_kernel and swapped == {"H", "W"} and chosen.is_plain:
                yield named_trap(kernel, "as_stored", "transposed", where)
            else:
                yield Trap(None, None, f"layout {here}", f"{there}, is {really}", where)
        elif name.endswith("/input") and pair.one.array.ndim == 2:
            yield from _flatten_order(evidence, step, name.removesuffix("/input"), chosen)


def _has_effect(evidence: Evidence, step: int, name: str) -> bool:
    """Whether a flipped kernel can be wrong: right is one whose operation flips it back.

    Its layer's outputs tell, all of which it would make others; where none is recorded, most of
    what is no state has to differ.
    """
    output = name.rsplit("/", 1)[0] + "/output"
    if known := [key for key in evidence.pairs if key[1] == output]:
        return all(key in evidence.disagreeing for key in known)
    names = ((key, key[1].rsplit("/", 1)[-1]) for key in evidence.pairs if key[0] >= step)
    known = [key for key, last in names if last not in (*_STATE, "var")]
    return 2 * sum(key in evidence.disagreeing for key in known) > len(known)


def _flatten_order(evidence: Evidence, step: int, layer: str, order: Arrangement) -> Iterator[Trap]:
    """Features in another order before a kernel whose rows are in the same, or the reverse."""
    keys = [(step, f"{layer}/{kernel}") for kernel in KERNELS]
    kernel = next((evidence.pairs[key] for key in keys if key in evidence.pairs), None)
    output = evidence.pairs.get((step, f"{layer}/output"))
    if kernel is None or kernel.order is None or not kernel.fits or (output and output.agrees):
        return
    refolds = [fold for fold in (order.refold, kernel.order.refold) if fold is not None]
    if len(refolds) == 1:
        first, second = orders_of_features(refolds[0]) or ("HWC", "CHW")
        where = (f"{layer}/input", kernel.one.name)
        yield named_trap("flatten_order", first.lower(), second.lower(), where)


def factor_traps(evidence: Evidence) -> Iterator[Trap]:
    """Yield the known readings of every disagreement that is one factor in all numbers."""
    batches, counts = _sizes(evidence)
    ours, theirs = evidence.sides
    factors = {key: multiple(ours[key], theirs[key]) for key in ours.keys() & theirs.keys()}
    for (step, name), pair in evidence.disagreeing.items():
        bound, is_state = pair.bound, name.rsplit("/", 1)[-1] in _STATE
        if is_state or (step, name) not in factors or bound > _COARSEST_BOUND:
            continue
        factor = factors[step, name]
        is_sensible = 1 / _LARGEST_FACTOR < abs(factor) < _LARGEST_FACTOR
        made = factor * ours[step, name]
        if not is_sensible or not relative_l2(made, theirs[step, name]) <= bound:
            continue
        apart = {key: abs(other / factor - 1.0) for key, other in factors.items()}
        # One number has any factor: it has to have about this one whenever it is recorded.
        most = min(1e-2, 0.1 * abs(factor - 1.0))
        is_everywhere = all(x <= most for key, x in apart.items() if key[1] == name)
        if made.size < LEAST_NUMBERS and not is_everywhere:
            continue
        if math.isclose(factor, -1.0, rel_tol=4 * bound):
            yield Trap(None, "generator-objective", "the sign", "turned", (name,))
        larger = max(factor, 1 / factor)
        losses = [x for (s, n), x in apart.items() if s == step and "loss" in n.lower()]
        is_of_loss = any(x <= 1e-2 for x in losses) if losses else None
        readings = [  # as near to a factor as tells it from 1, such as n / (n - 1) of a large n
            reading
            for size, *reading in _readings(name, batches, counts, is_of_loss)
            if math.isclose(larger, size, rel_tol=min(4 * bound, 0.1 * (size - 1.0)))
        ]
        for field, *values in readings:
            one, other = values if factor > 1 else reversed(values)
            # Of several sizes of batches none need be the loss's own.
            is_certain = len(readings) == 1 and (field != "loss_reduction" or len(batches) == 1)
            yield named_trap(field, one, other, (name,), is_certain)


def _sizes(evidence: Evidence) -> tuple[set[int], set[int]]:
    """Return the sizes of batches, and how many numbers a channel's statistics are made of."""
    batches, counts = set(), set()
    for (_, name), pair in evidence.pairs.items():
        shape, layout = pair.one.array.shape, pair.one.layout
        if layout is not None and "N" in layout:
            batches.add(shape[layout.index("N")])
        elif layout is None and shape and name.rsplit("/", 1)[-1].endswith(_BATCHES):
            batches.add(shape[0])
        if name.endswith("/input") and len(shape) >= 2:
            counts |= {math.prod(shape) // shape[axis] for axis in (1, -1)}
    return batches - {1}, counts - {0, 1}


def _readings(
    name: str, batches: set[int], counts: set[int], is_of_loss: bool | None
) -> Iterator[tuple[float, str, str, str]]:
    """Yield the factors above 1 that mean something: the field, its smaller and larger value."""
    is_gradient = name.endswith("/gradient")
    if is_gradient and not is_of_loss:
        field = f"{name.split('/', 1)[0]}_gradient_scale"
        for scale in KNOWN_NUMBERS["generator_gradient_scale"]:
            smaller, larger = sorted((1.0, scale))
            named = field if field in FIXES else "gradient scale"
            yield larger / smaller, named, str(smaller), str(larger)
    last = name.rsplit("/", 1)[-1]
    if is_of_loss is not False if is_gradient else not last.endswith((*_BATCHES, "output", "var")):
        for n in batches:
            yield n, "loss_reduction", "mean", "sum"
        yield 2.0, "lsgan_scale", "0.5", "1.0"
        if not name.startswith("generator"):
            yield 2.0, "discriminator_loss_scale", "0.5", "1.0"
    if name.endswith(("/var", "variance")):
        for n in counts:
            yield n / (n - 1), "batch_norm_running_variance", "biased", "unbiased"
