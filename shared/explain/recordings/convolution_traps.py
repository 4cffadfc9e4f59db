"""Traps of a convolution whose input, kernel and output are recorded."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from shared.explain.recordings.comparing import KERNELS
from shared.explain.recordings.evidence import (
    Evidence,
    Explanation,
    Side,
    fewest_differences,
    recently,
)
from shared.explain.recordings.report import Trap
from shared.reference import layers
from shared.reference.comparison import relative_l2
from shared.reference.layers import Array

Axes = tuple[int, ...]
Convolution = Callable[..., tuple[Array, layers.Saved]]
_IMAGES: tuple[Axes, ...] = ((0, 1, 2, 3), (0, 2, 3, 1))  # to NHWC
# To height, width and the two kinds of channels, in either order.
_KERNELS: tuple[Axes, ...] = ((0, 1, 2, 3), (0, 1, 3, 2), (2, 3, 0, 1), (2, 3, 1, 0))
_ALIGNMENTS = ("centred", "before", "after")
_TURNED: dict[str, Callable[[Array], Array]] = {
    "as_stored": lambda kernel: kernel,
    "flipped": lambda kernel: kernel[::-1, ::-1],
    "transposed": lambda kernel: kernel.swapaxes(0, 1),
}


def convolution_traps(evidence: Evidence) -> Iterator[Trap]:
    """Yield what differs in the kernel's use or in padding where a layer's output differs."""
    for step, layer in evidence.with_suffix("/output"):
        explained = evidence.explain(_convolution, step, layer, "output")
        yield from fewest_differences(*explained, (f"{layer}/output",))


def _convolution(side: Side, step: int, layer: str, bound: float) -> set[Explanation]:
    """Return every setting under which the recorded input and kernel give the recorded output."""
    x, y = (side.get((step, f"{layer}/{name}")) for name in ("input", "output"))
    kernels = [k for k in recently(side, step, layer, *KERNELS) if k.ndim == 4]
    if x is None or y is None or x.ndim != 4 or y.ndim != 4 or not kernels:
        return set()
    biases = [b.ravel() for b in recently(side, step, layer, "bias")] or [np.zeros(1)]
    found: set[Explanation] = set()
    for data, order, kernel in itertools.product(_IMAGES, _KERNELS, kernels):
        # Two images tell as much as all.
        images, expected = x[:2].transpose(data), y[:2].transpose(data)
        fitting = [b for b in biases if b.size in (1, expected.shape[-1])]
        for explanation, result in _convolutions(images, kernel.transpose(order), expected.shape):
            if any(relative_l2(result + bias, expected) <= bound for bias in fitting):
                found.add((*explanation, ("_layout", (data, order))))
    return found


def _convolutions(x: Array, kernel: Array, shape: Axes) -> Iterator[tuple[Explanation, Array]]:
    """Yield the result of every convolution of x and an HWIO or HWOI kernel of a given shape."""
    if x.shape[0] != shape[0]:
        return
    paddings = range(min(kernel.shape[:2]))
    for turn, stride, padding in itertools.product(_TURNED, range(1, 5), paddings):
        turned = _TURNED[turn](kernel)
        alignments = _ALIGNMENTS if padding else _ALIGNMENTS[:1]
        for field, run in _fitting(x.shape, turned.shape, shape, stride, padding):
            for alignment in alignments:
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
