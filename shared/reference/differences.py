"""How far two states, or two sets of gradients, of the same system are apart, array by array.

Relative L2 norms, but for what the arithmetic does not determine: a bias in front of a batch
normalisation, which subtracts it again. Its gradient is 0 in exact arithmetic and in floating
point the rounding of a sum, and Adam makes steps of such noise: of up to the learning rate in
float32. The networks' outputs in training do not change by it: docs/porting.md, row
bias-before-batch-norm.
"""

import itertools

import numpy as np

from shared.interface import Arrays
from shared.reference.comparison import relative_l2
from shared.spec import NETWORKS, SystemSpec, optimizer_name


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
    """Return the layers with a bias that a batch normalisation takes away again, with that."""
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
