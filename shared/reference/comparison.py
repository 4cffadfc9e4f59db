"""Comparing numbers: by how much they differ, and the worst element and where it is.

Differences are never signed sums or means, in which errors cancel: relative L2 norms, the largest
absolute difference, or ULP (units in the last place) against an exact truth.
"""

import itertools
import math
from fractions import Fraction

import numpy as np

from shared.interface import Array, Arrays
from shared.spec import NETWORKS, SystemSpec, optimizer_name

ExactNumber = Fraction | float  # a float only for inf, -inf and nan

# Distance from 1 to the next number and smallest normal number; numpy.finfo does not know it.
_BFLOAT16 = (2.0**-7, 2.0**-126)


def relative_l2(actual: Array, expected: Array, scale: Array | None = None) -> float:
    """Return ‖actual - expected‖ / ‖scale‖, in float64; 0 where the difference is zero.

    The scale is `expected` where none is given. nan where either holds a nan or an infinity.
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return float("nan")
    scale = expected if scale is None else np.asarray(scale, np.float64)
    difference, size = np.linalg.norm(actual - expected), np.linalg.norm(scale)
    if difference == 0.0:
        return 0.0
    return float(difference / size) if size else float("inf")


def worst_element(actual: Array, expected: Array) -> str:
    """Describe the element with the largest absolute difference; one that is nan comes first."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.abs(actual - expected)
    # To argmax a nan is the largest of all.
    index = tuple(map(int, np.unravel_index(np.argmax(difference), difference.shape)))
    received, wanted = float(actual[index]), float(expected[index])
    return f"worst element {index}: received {received!r}, expected {wanted!r}"


def ulp_error(
    actual: float | np.generic, expected: ExactNumber, dtype: np.dtype | str, *, floor: float = 0.0
) -> float:
    """Return |actual - expected| in units in the last place of `expected` rounded to `dtype`.

    The unit is never that of a number below `floor`. inf where one is nan or infinite and the
    other is not the same. Near the smallest normal number of the dtype (a truth below four times
    it), a difference of up to twice that number counts as 0: subnormals may be flushed to zero.
    """
    value = float(actual)
    info = None if str(dtype) == "bfloat16" else np.finfo(dtype)
    epsilon, tiny = (float(info.eps), float(info.tiny)) if info else _BFLOAT16
    if isinstance(expected, float):  # inf, -inf or nan
        same = np.isnan(value) if np.isnan(expected) else value == expected
        return 0.0 if same else float("inf")
    if not np.isfinite(value):
        return float("inf")
    difference, smallest = abs(Fraction(value) - expected), Fraction(tiny)
    if abs(expected) < 4 * smallest and difference <= 2 * smallest:
        return 0.0
    size = max(abs(expected), Fraction(floor), smallest)
    try:
        # math.ulp is float64's, which has 2⁵² of them from a power of two to the next one.
        return float(difference / (Fraction(math.ulp(size)) * 2**52 * Fraction(epsilon)))
    except OverflowError:  # more units than a float can count
        return float("inf")


# --- two states, or two sets of gradients, of the same system, array by array --------------------
# Relative L2 norms, but for what the arithmetic does not determine: a bias in front of a batch
# normalisation, which subtracts it. Its gradient is 0 in exact arithmetic and in floating
# point the rounding of a sum, and Adam makes steps of such noise: of up to the learning rate in
# float32. The networks' outputs in training do not change by it: docs/porting.md, row
# bias-before-batch-norm.


def cancelled_biases(spec: SystemSpec) -> dict[str, str]:
    """Return every bias that a batch normalisation cancels, with its layer's kernel."""
    return {f"{layer}/bias": f"{layer}/kernel" for layer, _ in _cancelled(spec)}


def drifting_arrays(spec: SystemSpec) -> tuple[str, ...]:
    """Return the arrays of a state that rounding moves: cancelled biases and BN's means of them."""
    pairs = _cancelled(spec)
    return tuple(name for layer, after in pairs for name in (f"{layer}/bias", f"{after}/mean"))


def gradient_differences(spec: SystemSpec, actual: Arrays, expected: Arrays) -> dict[str, float]:
    """Return the relative L2 difference of every gradient by name.

    That of a cancelled bias, and of a bias of one number, which crosses 0, is measured against the
    norm of its kernel's gradient.
    """
    return _differences(actual, expected, _reference_scales(spec))


def state_differences(spec: SystemSpec, actual: Arrays, expected: Arrays) -> dict[str, float]:
    """Return the relative L2 difference of every array of a state but the drifting ones.

    A counter that differs counts as inf. A bias of one number is measured against its kernel, the
    moments of it and of a cancelled bias against those of the kernel.
    """
    scales = _reference_scales(spec)
    moments = {
        optimizer_name(bias, moment): optimizer_name(kernel, moment)
        for bias, kernel in scales.items()
        for moment in getattr(spec, f"{bias.split('/')[0]}_optimizer").kept
    }
    drifting = set(drifting_arrays(spec))
    determined = {name: array for name, array in expected.items() if name not in drifting}
    return _differences(actual, determined, scales | moments)


def _reference_scales(spec: SystemSpec) -> dict[str, str]:
    single = {
        f"{network}/{layer.name}/bias": f"{network}/{layer.name}/kernel"
        for network in NETWORKS
        for layer in spec.layers(network)
        if {p.name for p in layer.parameters} == {"kernel", "bias"} and layer.output_shape[-1] == 1
    }
    return cancelled_biases(spec) | single


def drifts(spec: SystemSpec, actual: Arrays, expected: Arrays, steps: int) -> dict[str, float]:
    """Return how far each drifting array is from the other, as a part of how far it can get.

    The largest difference of any element over the learning rate times `steps`.
    """
    found = {}
    for name in drifting_arrays(spec):
        network = name.split("/", 1)[0]
        rate = getattr(spec, f"{network}_optimizer").learning_rate
        difference = np.abs(np.asarray(actual[name], np.float64) - expected[name]).max()
        found[name] = float(difference / (rate * steps))
    return found


# Of an image and a constant they make the image and the constant.
_KEEPS = ("upsample_nearest", "upsample_bilinear", "average_pool", "max_pool", "dropout")


def _cancelled(spec: SystemSpec) -> list[tuple[str, str]]:
    """Return the layers with a bias that a batch normalisation takes away, with that."""
    return [
        (f"{network}/{layer.name}", f"{network}/{after.name}")
        for network in NETWORKS
        for layer, after in itertools.pairwise(
            layer for layer in spec.layers(network) if layer.kind not in _KEEPS
        )
        if after.kind == "batch_norm" and {"kernel", "bias"} <= {p.name for p in layer.parameters}
    ]


def _differences(actual: Arrays, expected: Arrays, scales: dict[str, str]) -> dict[str, float]:
    found = {}
    for name, array in expected.items():
        if name.endswith("_optimizer/step"):
            found[name] = 0.0 if np.array_equal(actual[name], array) else np.inf
        else:
            found[name] = relative_l2(actual[name], array, expected[scales.get(name, name)])
    return found
