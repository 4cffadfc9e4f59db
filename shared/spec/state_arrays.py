"""The arrays of a training state: their canonical names, shapes and axes."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from shared.spec.layers import NETWORKS, Layer, NetworkName
from shared.spec.systems import SystemSpec


def state_shapes(spec: SystemSpec) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every array of a training state, in canonical order.

    Weights and BN statistics (`generator/<layer>/<parameter>`), both Adams' moments
    (`generator_optimizer/<layer>/<parameter>/m` and `/v`) and counters
    (`generator_optimizer/step`, a scalar).
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for network in NETWORKS:
        shapes.update({name: p.shape for name, p in spec.parameters(network).items()})
    for network in NETWORKS:
        for name, parameter in spec.parameters(network).items():
            if parameter.trainable:
                for moment in ("m", "v"):
                    shapes[optimizer_name(name, moment)] = parameter.shape
        shapes[f"{network}_optimizer/step"] = ()
    return shapes


Pixels = tuple[int, tuple[int, int, int]]


def flattened_pixels(spec: SystemSpec) -> dict[str, Pixels]:
    """Return every parameter one of whose axes runs over the pixels of a flattened image.

    By canonical name: that axis, and the (height, width, channels) that it runs over in HWC
    order. A framework whose images are NCHW has CHW order there.
    """
    found: dict[str, Pixels] = {}
    for network in NETWORKS:
        shape: tuple[int, ...] = spec.image_shape
        layers = spec.layers(network)
        for i, layer in enumerate(layers):
            if layer.kind == "flatten":
                height, width, channels = shape
                names = _names_down_to_dense(network, layers[i + 1 :])
                found |= dict.fromkeys(names, (0, (height, width, channels)))
            elif layer.kind == "reshape" and i > 0:
                height, width, channels = layer.output_shape
                axes = _names_up_to_dense(network, layers[:i])
                found |= {n: (axis, (height, width, channels)) for n, axis in axes.items()}
            shape = layer.output_shape
    return found


def _names_down_to_dense(network: NetworkName, layers: tuple[Layer, ...]) -> list[str]:
    """Return what acts on flattened features: every parameter up to the next dense kernel."""
    names: list[str] = []
    for layer in layers:
        names += [f"{network}/{layer.name}/{p.name}" for p in layer.parameters]
        if layer.kind == "dense":
            return [name for name in names if name != f"{network}/{layer.name}/bias"]
    return names


def _names_up_to_dense(network: NetworkName, layers: tuple[Layer, ...]) -> dict[str, int]:
    """Return the feature axis of every parameter from the last dense layer on."""
    first = max((i for i, layer in enumerate(layers) if layer.kind == "dense"), default=0)
    return {
        f"{network}/{layer.name}/{p.name}": len(p.shape) - 1
        for layer in layers[first:]
        for p in layer.parameters
    }


def optimizer_name(parameter_name: str, moment: Literal["m", "v"] | str) -> str:
    """Return the name of a parameter's Adam moment.

    >>> optimizer_name("generator/conv_transpose_1/kernel", "m")
    'generator_optimizer/conv_transpose_1/kernel/m'
    """
    network, rest = parameter_name.split("/", 1)
    return f"{network}_optimizer/{rest}/{moment}"


def cast_floats(
    arrays: Mapping[str, np.ndarray], dtype: type[np.floating] | str
) -> dict[str, np.ndarray]:
    """Return arrays with the floating-point ones in another dtype; counters stay as they are."""
    return {n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in arrays.items()}
