"""The arrays of a training state: their canonical names, shapes and axes."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from shared.spec.layers import NETWORKS, Layer
from shared.spec.systems import SystemSpec

Array = np.ndarray  # a framework's own is called Tensor everywhere
Arrays = dict[str, Array]


def state_shapes(spec: SystemSpec) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every array of a training state, in canonical order.

    Weights and BN statistics (`generator/<layer>/<parameter>`), both Adams' moments
    (`generator_optimizer/<layer>/<parameter>/m` and `/v`, AMSGrad's `/v_max`) and counters
    (`generator_optimizer/step`, a scalar).
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for network in NETWORKS:
        shapes.update({name: p.shape for name, p in spec.parameters(network).items()})
    for network in NETWORKS:
        for name, parameter in spec.parameters(network).items():
            if parameter.trainable:
                for kept in getattr(spec, f"{network}_optimizer").kept:
                    shapes[optimizer_name(name, kept)] = parameter.shape
        shapes[f"{network}_optimizer/step"] = ()
    return shapes


Pixels = tuple[int, tuple[int, ...]]


def flattened_pixels(spec: SystemSpec) -> dict[str, Pixels]:
    """Return every parameter one of whose axes runs over the pixels of a flattened image.

    By canonical name: that axis, and the (height, width, channels) that it runs over in HWC
    order. A framework whose images are NCHW has CHW order there.
    """
    found: dict[str, Pixels] = {}
    for network in NETWORKS:
        layers = spec.layers(network)
        inputs = (spec.image_shape, *(layer.output_shape for layer in layers))
        for i, layer in enumerate(layers):
            if layer.kind == "flatten" and len(inputs[i]) == 3:
                for below in _up_to_dense(layers[i + 1 :]):
                    # The bias of a dense layer is of the features that it makes.
                    own = below.parameters[:1] if below.kind == "dense" else below.parameters
                    found |= {f"{network}/{below.name}/{p.name}": (0, inputs[i]) for p in own}
            elif layer.kind == "reshape" and i > 0:
                for above in _up_to_dense(layers[:i][::-1]):
                    for p in above.parameters:
                        pixels = (len(p.shape) - 1, layer.output_shape)
                        found[f"{network}/{above.name}/{p.name}"] = pixels
    return found


def _up_to_dense(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return the layers up to the first dense one, with it."""
    dense = [i for i, layer in enumerate(layers) if layer.kind == "dense"]
    return layers[: dense[0] + 1] if dense else layers


def optimizer_name(parameter_name: str, moment: Literal["m", "v", "v_max"] | str) -> str:
    """Return the name of a parameter's Adam moment.

    >>> optimizer_name("generator/conv_transpose_1/kernel", "m")
    'generator_optimizer/conv_transpose_1/kernel/m'
    """
    network, rest = parameter_name.split("/", 1)
    return f"{network}_optimizer/{rest}/{moment}"


def cast_floats(arrays: Mapping[str, np.ndarray], dtype: type[np.floating] | str) -> Arrays:
    """Return arrays with the floating-point ones in another dtype; counters stay as they are."""
    return {n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in arrays.items()}
