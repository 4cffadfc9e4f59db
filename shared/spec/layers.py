"""One layer as data: its kind, its shapes, its parameters and how they start.

Shapes are NHWC; conv kernels are HWIO, conv-transpose kernels HWOI, dense kernels (in, out) with
in-features in HWC order.
"""

import math
from dataclasses import dataclass
from typing import Literal

NetworkName = Literal["generator", "discriminator"]
NETWORKS: tuple[NetworkName, NetworkName] = ("generator", "discriminator")

LayerKind = (
    Literal["conv", "conv_transpose", "dense", "batch_norm"]
    | Literal["relu", "leaky_relu", "tanh", "sigmoid", "dropout"]
    | Literal["flatten", "reshape", "reverse_channels", "zero_pad"]
    | Literal["upsample_nearest", "upsample_bilinear"]
    | Literal["average_pool", "max_pool", "global_average_pool"]
)

Padding = int | tuple[int, int]
"""Rows and columns on each side, or (before, after) on both axes."""


def sides(padding: Padding) -> tuple[int, int]:
    """Return the padding before and after."""
    return padding if isinstance(padding, tuple) else (padding, padding)


@dataclass(frozen=True)
class Initializer:
    """How a parameter starts.

    normal: N(mean, scale²). truncated_normal: the same, redrawn beyond 2·scale from the mean.
    uniform: U(mean ± scale). uniform_fan_in: U(±1/√fan_in), PyTorch's default.
    constant: the mean. glorot_uniform and lecun_normal, Keras' and Flax' defaults: see `sized`.
    """

    distribution: (
        Literal["constant", "normal", "truncated_normal", "uniform", "uniform_fan_in"]
        | Literal["glorot_uniform", "lecun_normal"]
    )
    mean: float = 0.0
    scale: float = 0.0


def sized(initializer: Initializer, shape: tuple[int, ...], fan_in: int) -> Initializer:
    """Return the initializer of a kernel with its sizes in numbers, where they decide its scale."""
    match initializer.distribution:
        case "glorot_uniform":  # Glorot & Bengio 2010, equation 16
            half_width = (6.0 / (math.prod(shape[:-2]) * sum(shape[-2:]))) ** 0.5
            return Initializer("uniform", 0.0, half_width)
        case "lecun_normal":  # of a normal cut at two deviations, which shrinks it by 0.8796
            return Initializer("truncated_normal", 0.0, fan_in**-0.5 / 0.87962566103423978)
    return initializer


ZEROS = Initializer("constant", 0.0)
ONES = Initializer("constant", 1.0)
NORMAL_002 = Initializer("normal", 0.0, 0.02)
TRUNCATED_NORMAL_002 = Initializer("truncated_normal", 0.0, 0.02)
NORMAL_002_AROUND_ONE = Initializer("normal", 1.0, 0.02)
UNIFORM_FAN_IN = Initializer("uniform_fan_in")


@dataclass(frozen=True)
class Parameter:
    """One named array of a layer; `trainable` is False for BN's running mean and var."""

    name: Literal["kernel", "bias", "scale", "mean", "var"]
    shape: tuple[int, ...]
    initializer: Initializer
    fan_in: int
    trainable: bool = True


@dataclass(frozen=True)
class Layer:
    """One layer of a network: `output_shape` is without the batch dimension.

    `padding`: the zeros around a conv's input, a max pool's -inf; of a conv transpose what is cut
    off its output, where a negative number adds zeros (PyTorch's output_padding). `size`: of a
    pooling's window, or the factor of an upsampling. `rate`: what dropout leaves out while it is
    on, which the reference never has. None is what `Conventions` has.
    """

    name: str
    kind: LayerKind
    output_shape: tuple[int, ...]
    parameters: tuple[Parameter, ...] = ()
    stride: int = 1
    padding: Padding = 0
    size: int = 1
    aligned_corners: bool = False
    slope: float | None = None
    epsilon: float | None = None
    momentum: float | None = None
    rate: float = 0.0
