"""One layer as data: its kind, its shapes, its parameters and how they start.

Shapes are NHWC; conv kernels are HWIO, conv-transpose kernels HWOI, dense kernels (in, out) with
in-features in HWC order.
"""

from dataclasses import dataclass
from typing import Literal

NetworkName = Literal["generator", "discriminator"]
NETWORKS: tuple[NetworkName, NetworkName] = ("generator", "discriminator")

LayerKind = Literal[
    "conv",
    "conv_transpose",
    "dense",
    "batch_norm",
    "relu",
    "leaky_relu",
    "tanh",
    "sigmoid",
    "flatten",
    "reshape",
    "reverse_channels",
]


@dataclass(frozen=True)
class Initializer:
    """How a parameter starts.

    normal: N(mean, scale²). truncated_normal: the same, redrawn beyond 2·scale from the mean.
    uniform: U(mean ± scale). uniform_fan_in: U(±1/√fan_in), `torch.nn.Linear`'s default.
    constant: the mean.
    """

    distribution: Literal["normal", "truncated_normal", "uniform", "uniform_fan_in", "constant"]
    mean: float = 0.0
    scale: float = 0.0


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
    """One layer of a network: `output_shape` is without the batch dimension."""

    name: str
    kind: LayerKind
    output_shape: tuple[int, ...]
    parameters: tuple[Parameter, ...] = ()
    stride: int = 1
    padding: int = 0


def convolution(
    name: str,
    kind: Literal["conv", "conv_transpose"],
    features: tuple[int, int],
    output_size: int,
    *,
    stride: int = 2,
    padding: int = 1,
    initializer: Initializer = NORMAL_002,
    has_bias: bool = False,
) -> Layer:
    """Return a convolution of 4x4 from `features[0]` to `features[1]` channels."""
    in_features, out_features = features
    # HWIO for conv and HWOI for conv-transpose.
    last_two = (in_features, out_features) if kind == "conv" else (out_features, in_features)
    fan_in = 16 * in_features
    kernel = Parameter("kernel", (4, 4, *last_two), initializer, fan_in)
    biases = (Parameter("bias", (out_features,), ZEROS, fan_in),) if has_bias else ()
    shape = (output_size, output_size, out_features)
    return Layer(name, kind, shape, (kernel, *biases), stride=stride, padding=padding)


def dense(name: str, in_features: int, out_features: int, initializer: Initializer) -> Layer:
    """Return a dense layer; its bias starts as the kernel does, or at 0 beside a normal one."""
    kernel = Parameter("kernel", (in_features, out_features), initializer, fan_in=in_features)
    bias_initializer = initializer if initializer is UNIFORM_FAN_IN else ZEROS
    bias = Parameter("bias", (out_features,), bias_initializer, fan_in=in_features)
    return Layer(name, "dense", (out_features,), (kernel, bias))


def batch_norm(name: str, shape: tuple[int, ...], scale: Initializer) -> Layer:
    """Return a batch normalisation of every axis but the last."""
    features = (shape[-1],)
    return Layer(
        name,
        "batch_norm",
        shape,
        (
            Parameter("scale", features, scale, fan_in=1),
            Parameter("bias", features, ZEROS, fan_in=1),
            Parameter("mean", features, ZEROS, fan_in=1, trainable=False),
            Parameter("var", features, ONES, fan_in=1, trainable=False),
        ),
    )
