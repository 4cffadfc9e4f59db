"""The systems as data: layers, parameter names and shapes, losses, optimizers, conventions.

Everything an implementation has to agree on stands here, and nothing about how a framework does
it. Shapes are NHWC; conv kernels are HWIO, conv-transpose kernels HWOI, dense kernels (in, out)
with in-features in HWC order.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

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
]
LossName = Literal["bce", "bce_probs", "minimax", "lsgan"]
LOSS_NAMES: tuple[LossName, ...] = ("bce", "bce_probs", "minimax", "lsgan")


def check_loss(name: str) -> str:
    """Return a loss' name; an unknown one raises ValueError that lists the known ones."""
    if name not in LOSS_NAMES:
        raise ValueError(f"unknown loss {name!r}; expected one of {', '.join(LOSS_NAMES)}")
    return name


@dataclass(frozen=True)
class Conventions:
    """Every numeric choice on which ports of a GAN are known to differ.

    The defaults are canonical: the three implementations follow them. The NumPy reference obeys
    every field, so the numbers of a wrong port can be produced and the mistake can be named.
    `None` means "as the system's spec says".
    """

    # Batch normalisation
    batch_norm_epsilon: float = 1e-5
    batch_norm_momentum: float = 0.1
    """Weight of the NEW statistic (PyTorch's meaning; Keras and Flax state 1 - momentum)."""
    batch_norm_running_variance: Literal["unbiased", "biased"] = "unbiased"
    batch_norm_mode: Literal["batch", "running", "running_in_generator_step"] = "batch"
    """Which statistics normalise while training; "running_in_generator_step" is what freezing the
    discriminator with Keras' `trainable = False` does."""
    batch_norm_statistics: Literal["every_pass", "not_in_generator_step", "never"] = "every_pass"
    """Which discriminator passes move the running statistics."""
    discriminator_batches: Literal["separate", "merged"] = "separate"
    """Real and fake images as two batches (two sets of BN statistics) or one."""

    # Activations, kernels, layout
    leaky_relu_slope: float = 0.2
    leaky_relu_gradient_at_zero: Literal["slope", "one"] = "slope"
    conv_transpose_kernel: Literal["as_stored", "flipped"] = "as_stored"
    flatten_order: Literal["hwc", "chw"] = "hwc"
    padding_alignment: Literal["centred", "before", "after"] = "centred"
    """Where the 2 * padding rows and columns of zeros go; "before" puts one more at the start."""

    # Losses
    loss_reduction: Literal["mean", "sum"] = "mean"
    discriminator_loss_scale: float = 1.0
    """0.5 is the average of the real and the fake half instead of their sum."""
    lsgan_scale: float = 0.5
    real_label: float = 1.0
    """Target of the discriminator on real images; a of LSGAN; 0.9 is one-sided smoothing."""
    fake_label: float = 0.0
    """Target of the discriminator on fake images; b of LSGAN."""
    generator_label: float = 1.0
    """Target of the generator's loss (bce, bce_probs); c of LSGAN."""
    probability_clipping: Literal["log_at_minus_100", "epsilon_1e-7", "none"] = "log_at_minus_100"
    generator_objective: Literal["as_named", "saturating", "non_saturating"] = "as_named"

    # The step
    detach_fake: bool = True
    """False: the discriminator's loss adds its gradient to the generator's."""
    update_order: Literal["discriminator_first", "simultaneous", "generator_first"] = (
        "discriminator_first"
    )

    # Adam
    adam_beta1: float | None = None
    adam_beta2: float | None = None
    adam_epsilon: float | None = None
    adam_epsilon_placement: Literal["outside", "before_correction", "inside_root"] = "outside"
    """outside: m̂/(√v̂ + ε), Kingma & Ba Algorithm 1. before_correction: their ε-hat form,
    stock Keras. inside_root: m̂/√(v̂ + ε)."""
    adam_bias_correction: bool = True

    # Initial weights
    initializer: Literal["spec", "torch_default", "keras_default", "flax_default"] = "spec"

    def replace(self, **changes: Any) -> Conventions:
        """Return a copy with some fields changed; an unknown field raises TypeError."""
        return dataclasses.replace(self, **changes)


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


@dataclass(frozen=True)
class AdamSpec:
    """Adam's settings (Kingma & Ba 2015, Algorithm 1)."""

    learning_rate: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    epsilon: float = 1e-8


@dataclass(frozen=True)
class SystemSpec:
    """One GAN system: everything needed to build and train it, in no framework's terms.

    `discriminator_head` is "conv" (k4s1p0 to one logit) or "linear" (flatten and a dense layer);
    every head goes with every loss. `width` is the number of channels beside the images.
    """

    name: str
    architecture: Literal["dcgan64"]
    image_size: int
    channels: int
    width: int
    latent_dim: int
    latent_distribution: Literal["normal", "uniform"]
    image_range: tuple[float, float]
    discriminator_head: Literal["conv", "linear"]
    loss: LossName
    batch_size: int
    discriminator_steps: int
    generator_optimizer: AdamSpec
    discriminator_optimizer: AdamSpec

    def __post_init__(self) -> None:
        for field in ("image_size", "channels", "width", "latent_dim", "batch_size"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"{field} must be a whole number of at least 1, received {value!r}"
                )
        check_loss(self.loss)
        if self.discriminator_steps != 1:
            raise ValueError(
                f"discriminator_steps must be 1, received {self.discriminator_steps!r}"
            )
        if self.discriminator_head not in ("conv", "linear"):
            raise ValueError(
                f"discriminator_head must be conv or linear, received {self.discriminator_head!r}"
            )
        if self.architecture == "dcgan64" and self.image_size != 64:
            raise ValueError(f"dcgan64 makes 64x64 images, received image_size={self.image_size}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return (self.image_size, self.image_size, self.channels)

    def replace(self, **changes: Any) -> SystemSpec:
        """Return a copy with some fields changed, such as `width=8` for a narrow system."""
        return dataclasses.replace(self, **changes)

    def layers(self, network: NetworkName) -> tuple[Layer, ...]:
        """Return the layers of one network, in the order in which data passes them."""
        if network not in NETWORKS:
            raise ValueError(f"unknown network {network!r}; expected one of {', '.join(NETWORKS)}")
        return _dcgan64_generator(self) if network == "generator" else _dcgan64_discriminator(self)

    def parameters(self, network: NetworkName) -> dict[str, Parameter]:
        """Return every parameter and BN statistic by its canonical name, in layer order."""
        return {
            f"{network}/{layer.name}/{parameter.name}": parameter
            for layer in self.layers(network)
            for parameter in layer.parameters
        }

    def parameter_count(self, network: NetworkName) -> int:
        """Return the number of trainable numbers of one network."""
        return sum(math.prod(p.shape) for p in self.parameters(network).values() if p.trainable)

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain JSON data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SystemSpec:
        """Rebuild a spec from `to_dict`; a missing or unknown field raises ValueError."""
        expected = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(data, dict) or set(data) != expected:
            received = sorted(data) if isinstance(data, dict) else type(data).__name__
            raise ValueError(f"a spec needs the fields {sorted(expected)}, received {received}")
        try:
            return cls(
                **{
                    **data,
                    "image_range": tuple(data["image_range"]),
                    "generator_optimizer": AdamSpec(**data["generator_optimizer"]),
                    "discriminator_optimizer": AdamSpec(**data["discriminator_optimizer"]),
                }
            )
        except TypeError as error:
            raise ValueError(f"a field of the spec has the wrong type: {error}") from error


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


def optimizer_name(parameter_name: str, moment: Literal["m", "v"] | str) -> str:
    """Return the name of a parameter's Adam moment.

    >>> optimizer_name("generator/conv_transpose_1/kernel", "m")
    'generator_optimizer/conv_transpose_1/kernel/m'
    """
    network, rest = parameter_name.split("/", 1)
    return f"{network}_optimizer/{rest}/{moment}"


# --- building blocks -------------------------------------------------------------------------


def _convolution(
    name: str,
    kind: Literal["conv", "conv_transpose"],
    features: tuple[int, int],
    output_size: int,
    stride: int,
    padding: int,
) -> Layer:
    in_features, out_features = features
    # HWIO for conv and HWOI for conv-transpose.
    last_two = (in_features, out_features) if kind == "conv" else (out_features, in_features)
    kernel = Parameter("kernel", (4, 4, *last_two), NORMAL_002, fan_in=16 * in_features)
    shape = (output_size, output_size, out_features)
    return Layer(name, kind, shape, (kernel,), stride=stride, padding=padding)


def _dense(name: str, in_features: int, out_features: int, initializer: Initializer) -> Layer:
    kernel = Parameter("kernel", (in_features, out_features), initializer, fan_in=in_features)
    bias_initializer = initializer if initializer is UNIFORM_FAN_IN else ZEROS
    bias = Parameter("bias", (out_features,), bias_initializer, fan_in=in_features)
    return Layer(name, "dense", (out_features,), (kernel, bias))


def _batch_norm(name: str, shape: tuple[int, ...]) -> Layer:
    features = (shape[-1],)
    return Layer(
        name,
        "batch_norm",
        shape,
        (
            Parameter("scale", features, NORMAL_002_AROUND_ONE, fan_in=1),
            Parameter("bias", features, ZEROS, fan_in=1),
            Parameter("mean", features, ZEROS, fan_in=1, trainable=False),
            Parameter("var", features, ONES, fan_in=1, trainable=False),
        ),
    )


def _dcgan64_generator(spec: SystemSpec) -> tuple[Layer, ...]:
    """Latents → 4x4 → 8x8 → 16x16 → 32x32 → 64x64 (Radford et al. 2016, figure 1)."""
    features = [spec.latent_dim, *(spec.width * m for m in (8, 4, 2, 1)), spec.channels]
    layers = [Layer("reshape_0", "reshape", (1, 1, spec.latent_dim))]
    for i in range(1, 6):
        size, stride, padding = 2 ** (i + 1), 1 if i == 1 else 2, 0 if i == 1 else 1
        pair = (features[i - 1], features[i])
        convolution = _convolution(
            f"conv_transpose_{i}", "conv_transpose", pair, size, stride, padding
        )
        layers.append(convolution)
        if i < 5:
            layers.append(_batch_norm(f"batch_norm_{i}", convolution.output_shape))
            layers.append(Layer(f"relu_{i}", "relu", convolution.output_shape))
    layers.append(Layer("tanh_5", "tanh", spec.image_shape))
    return tuple(layers)


def _dcgan64_discriminator(spec: SystemSpec) -> tuple[Layer, ...]:
    """64x64 → 32x32 → 16x16 → 8x8 → 4x4 → one score; the sigmoid belongs to the loss."""
    features = [spec.channels, *(spec.width * m for m in (1, 2, 4, 8))]
    layers: list[Layer] = []
    for i in range(1, 5):
        pair = (features[i - 1], features[i])
        convolution = _convolution(f"conv_{i}", "conv", pair, 2 ** (6 - i), 2, 1)
        layers.append(convolution)
        if i > 1:
            layers.append(_batch_norm(f"batch_norm_{i}", convolution.output_shape))
        layers.append(Layer(f"leaky_relu_{i}", "leaky_relu", convolution.output_shape))
    if spec.discriminator_head == "conv":
        layers.append(_convolution("conv_5", "conv", (features[4], 1), 1, 1, 0))
        layers.append(Layer("flatten_5", "flatten", (1,)))
    else:
        layers.append(Layer("flatten_4", "flatten", (16 * features[4],)))
        layers.append(_dense("dense_5", 16 * features[4], 1, UNIFORM_FAN_IN))
    if spec.loss == "bce_probs":
        layers.append(Layer("sigmoid_5", "sigmoid", (1,)))
    return tuple(layers)


_DCGAN64 = SystemSpec(
    name="dcgan64",
    architecture="dcgan64",
    image_size=64,
    channels=3,
    width=64,
    latent_dim=100,
    latent_distribution="normal",
    image_range=(-1.0, 1.0),
    discriminator_head="conv",
    loss="bce",
    batch_size=128,
    discriminator_steps=1,
    generator_optimizer=AdamSpec(),
    discriminator_optimizer=AdamSpec(),
)

SYSTEMS: dict[str, SystemSpec] = {
    "dcgan64": _DCGAN64,
    "dcgan64-lsgan": _DCGAN64.replace(
        name="dcgan64-lsgan", discriminator_head="linear", loss="lsgan"
    ),
}


def get_system(name: str) -> SystemSpec:
    """Return a system by name; an unknown name raises ValueError that lists the known ones."""
    if name not in SYSTEMS:
        raise ValueError(f"unknown system {name!r}; expected one of {', '.join(SYSTEMS)}")
    return SYSTEMS[name]
