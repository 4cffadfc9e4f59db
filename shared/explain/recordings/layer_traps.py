"""Traps of a layer whose input, parameters and output are recorded: convolutions, batch norm."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from shared.explain.recordings.aligning import KERNELS
from shared.explain.recordings.evidence import (
    Evidence,
    Explanation,
    Side,
    fewest_differences,
    multiple,
    named_trap,
    recently,
)
from shared.explain.recordings.report import Trap
from shared.reference import layers
from shared.reference.layers import Array, batch_norm_forward, batch_norm_inference

Axes = tuple[int, ...]
Ways = Iterator[tuple[Explanation, Array, Array]]
Convolution = Callable[..., tuple[Array, layers.Saved]]
_EPSILONS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-8)
_CHANNEL_AXES = (-1, 1)
_IMAGES: tuple[Axes, ...] = ((0, 1, 2, 3), (0, 2, 3, 1))  # to NHWC
# To height, width and the two kinds of channels, in either order.
_KERNELS: tuple[Axes, ...] = ((0, 1, 2, 3), (0, 1, 3, 2), (2, 3, 0, 1), (2, 3, 1, 0))
_ALIGNMENTS = ("centred", "before", "after")
_TURNED: dict[str, Callable[[Array], Array]] = {
    "as_stored": lambda kernel: kernel,
    "flipped": lambda kernel: kernel[::-1, ::-1],
    "transposed": lambda kernel: kernel.swapaxes(0, 1),
}


def layer_traps(evidence: Evidence) -> Iterator[Trap]:
    """Yield what differs where a layer's output or its running statistics differ."""
    for operation in (_convolution, _normalisation):
        for layer, first, second in evidence.explained(operation, "output"):
            yield from fewest_differences(first, second, (f"{layer}/output",))
    for layer, first, second in evidence.explained(_running_move, "mean", "var"):
        where = (f"{layer}/mean", f"{layer}/var")
        # A move of weight 0 is none.
        still = [bool(side) and all(x[0][1] == 0.0 for x in side) for side in (first, second)]
        if first and second and still[0] != still[1]:
            one, other = ("never" if never else "every_pass" for never in still)
            yield named_trap("batch_norm_statistics", one, other, where)
        else:
            yield from fewest_differences(first, second, where)


def _convolution(side: Side, step: int, layer: str) -> Ways:
    """Yield every setting under which the recorded input and kernel may give the output."""
    x, y = (side.get((step, f"{layer}/{name}")) for name in ("input", "output"))
    kernels = [k for k in recently(side, step, layer, *KERNELS) if k.ndim == 4]
    if x is None or y is None or x.ndim != 4 or y.ndim != 4 or len(x) != len(y):
        return
    biases = [b.ravel() for b in recently(side, step, layer, "bias")] or [np.zeros(1)]
    for data, order, kernel in itertools.product(_IMAGES, _KERNELS, kernels):
        # Two images show as much as all.
        images, expected = x[:2].transpose(data), y[:2].transpose(data)
        fitting = [b for b in biases if b.size in (1, expected.shape[-1])]
        for explanation, result in _convolutions(images, kernel.transpose(order), expected.shape):
            for bias in fitting:
                yield (*explanation, ("_layout", (data, order))), result + bias, expected


def _convolutions(x: Array, kernel: Array, shape: Axes) -> Iterator[tuple[Explanation, Array]]:
    """Yield the result of every convolution of x and an HWIO or HWOI kernel of a given shape."""
    paddings = range(min(kernel.shape[:2]))
    for turn, stride, padding in itertools.product(_TURNED, range(1, 5), paddings):
        turned = _TURNED[turn](kernel)
        alignments = _ALIGNMENTS if padding else _ALIGNMENTS[:1]
        kinds = _fitting(x.shape, turned.shape, shape, stride, padding)
        for (field, run), alignment in itertools.product(kinds, alignments):
            settings = (("_kind", field), ("_stride", (stride, padding)))
            explanation = ((field, turn), ("padding_alignment", alignment), *settings)
            yield explanation, run(x, turned, stride, padding, alignment)[0]


def _fitting(
    x: Axes, kernel: Axes, y: Axes, stride: int, padding: int
) -> Iterator[tuple[str, Convolution]]:
    """Yield the kinds of convolution that make the shape y of the shape x, both NHWC."""
    sizes = list(zip(x[1:3], kernel[:2], strict=True))
    down = tuple((size + 2 * padding - taps) // stride + 1 for size, taps in sizes)
    if (*down, *kernel[2:]) == (*y[1:3], x[3], y[3]):
        yield "conv_kernel", layers.conv_forward
    up = tuple(stride * (size - 1) + taps - 2 * padding for size, taps in sizes)
    if (*up, *kernel[2:]) == (*y[1:3], y[3], x[3]):
        yield "conv_transpose_kernel", layers.conv_transpose_forward


def _normalisation(side: Side, step: int, layer: str) -> Ways:
    """Yield every epsilon and kind of statistics that may give the recorded output."""
    x, y = (side.get((step, f"{layer}/{name}")) for name in ("input", "output"))
    scales, biases, means, variances = (
        [np.ravel(array) for array in recently(side, step, layer, name)]
        for name in ("scale", "bias", "mean", "var")
    )
    running = list(zip(means, variances, strict=False))
    if x is None or y is None or x.shape != y.shape or x.ndim < 2 or not (scales or running):
        return
    parameters = itertools.product(scales or [np.ones(1)], biases or [np.zeros(1)])
    for axis, (scale, bias) in itertools.product(_CHANNEL_AXES, parameters):
        inputs, expected = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
        channels = inputs.shape[-1]
        if not {scale.size, bias.size} <= {1, channels}:
            continue
        for epsilon in _EPSILONS:
            field = "batch_norm_epsilon", epsilon
            made = batch_norm_forward(inputs, scale, bias, epsilon)[0]
            yield (field, ("batch_norm_mode", "batch")), made, expected
            for mean, var in running:
                if mean.size == var.size == channels:
                    made = batch_norm_inference(inputs, scale, bias, mean, var, epsilon)[0]
                    yield (field, ("batch_norm_mode", "running")), made, expected


def _running_move(side: Side, step: int, layer: str) -> Ways:
    """Yield the new statistics' weight that fits best, for either estimator of the variance."""
    x = side.get((step, f"{layer}/input"))
    keys = [(s, f"{layer}/{name}") for s in (step - 1, step) for name in ("mean", "var")]
    if x is None or x.ndim < 2 or any(key not in side for key in keys):
        return
    vectors = [np.ravel(side[key]) for key in keys]
    before, after = np.concatenate(vectors[:2]), np.concatenate(vectors[2:])
    for axis, estimator in itertools.product(_CHANNEL_AXES, ("biased", "unbiased")):
        rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
        if {v.size for v in vectors} != {rows.shape[1]} or len(rows) < 2:
            continue
        variance = rows.var(axis=0, ddof=int(estimator == "unbiased"))
        way = np.concatenate([rows.mean(axis=0), variance]) - before
        weight = multiple(way, after - before) if way.any() else 0.0
        momentum = "batch_norm_momentum", abs(round(weight, 4))
        fields = momentum, ("batch_norm_running_variance", estimator)
        yield fields, before + weight * way, after
