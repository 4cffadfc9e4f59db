"""The random numbers of a run, the same in every framework: weights, latents, order of batches.

Every draw has its own Philox stream, keyed by the seed and by what is drawn, so nothing depends
on the order of calls: a resumed run needs only the seed and the step. `numpy.random.Philox` is
counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
"""

import math
import zlib

import numpy as np

from shared.spec.conventions import Conventions
from shared.spec.layers import NETWORKS, ZEROS, Initializer, Layer, Parameter, sized
from shared.spec.state_arrays import Arrays, state_shapes
from shared.spec.systems import SystemSpec

MAXIMUM_SEED = 2**63 - 1


def stream(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """Return the generator of one draw: `purpose` names it, `index` counts (a step, an epoch).

    Raises ValueError for a seed outside [0, 2⁶³) or a negative index.
    """
    check_seed(seed)
    if index < 0:
        raise ValueError(f"index must not be negative, received {index}")
    key = np.array([seed, zlib.crc32(purpose.encode())], dtype=np.uint64)
    # The highest word of the counter is the index: 2¹⁹² numbers before two draws could overlap.
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))


def check_seed(seed: int, name: str = "seed") -> None:
    """Raise ValueError, under this name, for a seed outside [0, 2⁶³)."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise ValueError(f"{name} must be a whole number, received {seed!r}")
    if not 0 <= seed <= MAXIMUM_SEED:
        raise ValueError(f"{name} must be between 0 and {MAXIMUM_SEED}, received {seed}")


def latents(
    spec: SystemSpec, seed: int, step: int, batch_size: int, *, purpose: str = "latents"
) -> np.ndarray:
    """Return the latents of one step, float64 [batch, latent_dim].

    N(0, 1), U(-1, 1) or U(0, 1), as in the spec. A fixed latent grid has a `purpose` of its own.
    """
    draw = stream(seed, purpose, step)
    shape = (batch_size, spec.latent_dim)
    if spec.latent_distribution.startswith("uniform"):
        return draw.uniform(0.0 if spec.latent_distribution == "uniform_0_1" else -1.0, 1.0, shape)
    return draw.standard_normal(shape)


def batch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Return the order in which an epoch visits a data set of `size` images, int64 [size]."""
    return stream(seed, "batch_order", epoch).permutation(size)


def initial_state(spec: SystemSpec, seed: int, conventions: Conventions | None = None) -> Arrays:
    """Return every array of a fresh training state, float64, under its canonical name.

    Weights are drawn from the spec's initializers; Adam's moments and counters are zero.
    """
    conventions = conventions or Conventions()
    arrays = {
        name: np.zeros(shape, np.int64 if name.endswith("_optimizer/step") else np.float64)
        for name, shape in state_shapes(spec).items()
    }
    for name, (parameter, initializer) in initializers(spec, conventions).items():
        arrays[name] = _draw(parameter, initializer, stream(seed, name))
    return arrays


def initializers(spec: SystemSpec, c: Conventions) -> dict[str, tuple[Parameter, Initializer]]:
    """Return every parameter of both networks by its name, with how it starts under `c`."""
    return {
        f"{network}/{layer.name}/{parameter.name}": (parameter, _initializer(layer, parameter, c))
        for network in NETWORKS
        for layer in spec.layers(network)
        for parameter in layer.parameters
    }


def _initializer(layer: Layer, parameter: Parameter, conventions: Conventions) -> Initializer:
    """Return the spec's initializer, or what a framework's layer does when left alone."""
    if conventions.initializer == "spec" or not parameter.trainable:
        return parameter.initializer
    if layer.kind == "batch_norm":
        return Initializer("constant", 1.0 if parameter.name == "scale" else 0.0)
    if conventions.initializer == "torch_default":
        # U(±1/√fan_in) for kernel and bias; PyTorch takes a conv-transpose's OUT features, in HWOI
        # the last axis but one, for its fan-in.
        return Initializer("uniform", 0.0, math.prod(layer.parameters[0].shape[:-1]) ** -0.5)
    if parameter.name == "bias":
        return ZEROS
    is_keras = conventions.initializer == "keras_default"
    usual = Initializer("glorot_uniform" if is_keras else "lecun_normal")
    return sized(usual, parameter.shape, parameter.fan_in)


def _draw(parameter: Parameter, initializer: Initializer, draw: np.random.Generator) -> np.ndarray:
    mean, scale, shape = initializer.mean, initializer.scale, parameter.shape
    match initializer.distribution:
        case "constant":
            return np.full(shape, mean)
        case "normal":
            return mean + scale * draw.standard_normal(shape)
        case "uniform":
            return mean + scale * draw.uniform(-1.0, 1.0, shape)
        case "uniform_fan_in":
            return draw.uniform(-1.0, 1.0, shape) / np.sqrt(parameter.fan_in)
        case "truncated_normal":
            values = draw.standard_normal(shape)
            while (outside := np.abs(values) > 2.0).any():
                values[outside] = draw.standard_normal(int(outside.sum()))
            return mean + scale * values
    raise ValueError(f"unknown distribution {initializer.distribution!r}")
