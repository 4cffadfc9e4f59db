"""Traps of a layer whose input and results are recorded: its kernel, padding, normalisation."""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from shared.explain.recordings import evidence as traps
from shared.explain.recordings.evidence import Evidence, Explanation, Side, listed, multiple
from shared.explain.recordings.matching import KERNELS
from shared.explain.search import LEAST_NUMBERS
from shared.reference import layers
from shared.reference.comparison import relative_l2
from shared.reference.layers import Array

Axes = tuple[int, ...]
_CHANNEL_AXES = (-1, 1)
_IMAGES: tuple[Axes, ...] = ((0, 1, 2, 3), (0, 2, 3, 1))  # to NHWC
# To height, width and the two kinds of channels, in either order.
_KERNELS: tuple[Axes, ...] = ((0, 1, 2, 3), (0, 1, 3, 2), (2, 3, 0, 1), (2, 3, 1, 0))
_CONVOLUTIONS = {
    "conv_kernel": layers.conv_forward,
    "conv_transpose_kernel": layers.conv_transpose_forward,
}
Ways = Iterable[tuple[Explanation, Array, Array]]
"""Every way in which one side may have computed something of a layer, the numbers that the
reference gets in this way, and those that are recorded."""
Move = tuple[int, Array, list[Array], Array]
"""A step's number, mean and variance before it, those of its batches, and those after it."""


def layer_traps(evidence: Evidence) -> Iterator[traps.Trap]:
    """Yield what differs where a layer's output or its running statistics differ."""
    outputs = [key for key in evidence.disagreeing if key[1].endswith("/output")]
    for operation, (step, name) in itertools.product((_convolution, _normalisation), outputs):
        layer, bound = name.removesuffix("/output"), evidence.pairs[step, name].bound
        first, second = (
            traps.simplest({e for e, made, shown in ways if relative_l2(made, shown) <= bound})
            for ways in (operation(side, step, layer) for side in evidence.sides)
        )
        yield from traps.fewest_differences(first, second, (name,))
    moved = [name for _, name in evidence.disagreeing if name.endswith(("/mean", "/var"))]
    for layer in dict.fromkeys(name.rsplit("/", 1)[0] for name in moved):
        where = (f"{layer}/mean", f"{layer}/var")
        bound = max(p.bound for (_, name), p in evidence.pairs.items() if name in where)
        first, second = (_averages(side, layer, bound) for side in evidence.sides)
        # A move of weight 0 is none.
        still = [bool(side) and all(x[0][1] == 0.0 for x in side) for side in (first, second)]
        if first and second and still[0] != still[1]:
            never = _still_value(evidence.sides[still.index(True)], layer)
            one, other = (never if is_still else "every_pass" for is_still in still)
            if never:
                yield traps.named_trap("batch_norm_statistics", one, other, where)
        else:
            yield from traps.fewest_differences(first, second, where)


def _still_value(side: Side, layer: str) -> str:
    """Return the convention by which a layer's statistics never move, "" where there is none."""
    network = layer.split("/", 1)[0]
    others = [k for k in side if k[1].endswith("/mean") and not k[1].startswith(f"{network}/")]
    earlier = [(side.get((step - 1, name)), side[step, name]) for step, name in others]
    if not any(a is not None and not np.array_equal(a, b) for a, b in earlier):
        return "never"
    return "not_of_generator" if network == "generator" else ""


def _recently(side: Side, step: int, layer: str, *names: str) -> list[Array]:
    """Return a layer's parameter of this step and the last: a forward pass may be before both."""
    keys = [(s, f"{layer}/{name}") for s in (step, step - 1) for name in names]
    return [side[key] for key in keys if key in side]


def _convolution(side: Side, step: int, layer: str) -> Ways:
    x, y = (side.get((step, f"{layer}/{name}")) for name in ("input", "output"))
    kernels = [k for k in _recently(side, step, layer, *KERNELS) if k.ndim == 4]
    if x is None or y is None or x.ndim != 4 or y.ndim != 4 or len(x) != len(y):
        return
    biases = [b.ravel() for b in _recently(side, step, layer, "bias")] or [np.zeros(1)]
    for data, order, kernel in itertools.product(_IMAGES, _KERNELS, kernels):
        # Two images show as much as all.
        images, expected = x[:2].transpose(data), y[:2].transpose(data)
        fitting = [b for b in biases if b.size in (1, expected.shape[-1])]
        for explanation, result in _convolutions(images, kernel.transpose(order), expected.shape):
            for bias in fitting:
                yield (*explanation, ("_layout", (data, order))), result + bias, expected


def _convolutions(x: Array, kernel: Array, shape: Axes) -> Iterator[tuple[Explanation, Array]]:
    """Yield the result of every convolution of x and an HWIO or HWOI kernel of a given shape."""
    ways = {"as_stored": kernel, "flipped": kernel[::-1, ::-1], "transposed": kernel.swapaxes(0, 1)}
    for (name, k), stride, field in itertools.product(ways.items(), range(1, 5), _CONVOLUTIONS):
        small, large = (shape, x.shape) if field == "conv_kernel" else (x.shape, shape)
        rows, columns = (stride * (small[a] - 1) + k.shape[a - 1] - large[a] for a in (1, 2))
        if k.shape[2:] != (large[3], small[3]) or rows != columns or rows <= -stride:
            continue
        for alignment, sides in _alignments(max(0, rows)).items():
            made = _CONVOLUTIONS[field](x, k, stride, sides)[0]
            fields = (field, name), ("padding_alignment", alignment)
            if made.shape == shape:
                yield (*fields, ("_kind", field), ("_stride", stride)), made


def _alignments(padding: int) -> dict[str, tuple[int, int]]:
    """Return how many rows and columns of zeros can be before and after, if so many are in all."""
    # Odd ones are as PyTorch's padding and output_padding are, and as "same" is.
    before = {} if padding % 2 else {"centred": padding // 2}
    before |= {"before": padding // 2 + 1, "after": (padding - 1) // 2}
    return {name: (n, padding - n) for name, n in before.items() if 0 <= n <= padding}


def _normalisation(side: Side, step: int, layer: str) -> Ways:
    x, y = (side.get((step, f"{layer}/{name}")) for name in ("input", "output"))
    scales, biases, means, variances = (
        [np.ravel(array) for array in _recently(side, step, layer, name)]
        for name in ("scale", "bias", "mean", "var")
    )
    if x is None or y is None or x.shape != y.shape or x.ndim < 2 or not (scales or means):
        return
    parameters = itertools.product(scales or [np.ones(1)], biases or [np.zeros(1)])
    for axis, (scale, bias) in itertools.product(_CHANNEL_AXES, parameters):
        inputs, expected = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
        rows = inputs.reshape(-1, inputs.shape[-1])
        statistics = [("batch", rows.mean(axis=0), rows.var(axis=0))]
        statistics += [("running", m, v) for m, v in zip(means, variances, strict=False)]
        for mode, mean, var in statistics:
            if mean.size != var.size or {scale.size, bias.size, mean.size} - {1, rows.shape[1]}:
                continue
            are_enough = var.size >= LEAST_NUMBERS
            fitted = _epsilon(inputs - mean, expected - bias, scale, var) if are_enough else []
            for epsilon in dict.fromkeys([*listed("batch_norm_epsilon"), *fitted]):
                own = (mean, var)
                made = layers.batch_norm_forward(inputs, scale, bias, epsilon, running=own)[0]
                yield (("batch_norm_epsilon", epsilon), ("batch_norm_mode", mode)), made, expected


def _epsilon(centred: Array, scaled: Array, scale: Array, variance: Array) -> list[float]:
    """Return the epsilon that a normalisation's channel of the smallest variance shows, if any."""
    channel = int(np.argmin(variance))
    inverse = multiple((centred * scale)[..., channel], scaled[..., channel])
    epsilon = 1.0 / inverse**2 - variance[channel] if inverse else 0.0
    return [float(f"{epsilon:.{digits}g}") for digits in (3, 6) if 0.0 < epsilon < 1.0]


def _averages(side: Side, layer: str, bound: float) -> set[Explanation]:
    """Return every running average that explains the statistics of all recorded steps."""
    found: set[Explanation] = set()
    for axis, estimator in itertools.product(_CHANNEL_AXES, ("biased", "unbiased")):
        moves = list(_moves(side, layer, axis, ddof=int(estimator == "unbiased")))
        if not moves:
            continue
        _, before, passes, after = moves[0]
        way = passes[0] - before
        ways = [(0.0, "plain", 1)]
        if way.any() and len(passes) == 1 and way.size * len(moves) >= LEAST_NUMBERS:
            weight = multiple(way, after - before)
            # Several passes over one batch leave a power of what one leaves of the old statistic.
            several = (1, 2, 3) if 0.0 < weight < 1.0 else ()
            ways += [(1.0 - (1.0 - weight) ** (1 / n), "plain", n) for n in several]
        for momentum in listed("batch_norm_momentum"):
            ways += [(momentum, "plain", n) for n in (1, 2, 3)]
            ways += [(momentum, "zero-debiased", 1)] if len(moves) > 1 else []
        for momentum, average, times in ways:
            if _are_made(moves, momentum, average, times, bound):
                of_new = "batch_norm_momentum", abs(round(momentum, 4))
                rest = ("passes a step:", times), ("running average", average)
                found.add((of_new, ("batch_norm_running_variance", estimator), *rest))
    return traps.simplest(found)


def _moves(side: Side, layer: str, axis: int, ddof: int) -> Iterator[Move]:
    for step in sorted(s for s, name in side if name == f"{layer}/mean"):
        keys = [(s, f"{layer}/{name}") for s in (step - 1, step) for name in ("mean", "var")]
        names = [f"{layer}/input", *(f"{layer}/input/{n}" for n in range(2, 10))]
        inputs = [side[step, name] for name in names if (step, name) in side]
        if not inputs or any(key not in side for key in keys):
            continue
        vectors = [np.ravel(side[key]) for key in keys]
        rows = [np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]) for x in inputs if x.ndim > 1]
        fits = {v.size for v in vectors} | {x.shape[1] for x in rows} == {vectors[0].size}
        if rows and fits and min(map(len, rows)) > 1:
            passes = [np.concatenate([x.mean(axis=0), x.var(axis=0, ddof=ddof)]) for x in rows]
            yield step, np.concatenate(vectors[:2]), passes, np.concatenate(vectors[2:])


def _are_made(moves: list[Move], momentum: float, average: str, times: int, bound: float) -> bool:
    for step, before, passes, after in moves:
        made, in_a_step = before, len(passes) * times
        for number, statistic in enumerate(passes * times, (step - 1) * in_a_step + 1):
            # haiku divides an average that began at 0 by its weight in all.
            in_all = 1.0 - (1.0 - momentum) ** number if average == "zero-debiased" else 1.0
            made = made + momentum / in_all * (statistic - made)
        if not relative_l2(made, after) <= bound:
            return False
    return True
