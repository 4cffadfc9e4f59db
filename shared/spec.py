"""The systems as data: sizes, losses, optimizers, the order of a step, conventions.

Everything an implementation has to agree on stands here and in `shared.architectures`, and
nothing about how a framework does it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from shared.architectures import BUILDERS, IMAGE_SIZES
from shared.layer import NETWORKS, Initializer, Layer, NetworkName, Parameter

__all__ = [
    "LOSS_NAMES",
    "NETWORKS",
    "SYSTEMS",
    "AdamSpec",
    "Conventions",
    "Initializer",
    "Layer",
    "LossName",
    "NetworkName",
    "Parameter",
    "Pixels",
    "SystemSpec",
    "check_loss",
    "flattened_pixels",
    "get_system",
    "optimizer_name",
    "state_shapes",
]

GeneratorBatch = Literal["same_images", "same_latents", "new_latents"]
LossName = Literal["bce", "bce_probs", "minimax", "lsgan"]
LOSS_NAMES: tuple[LossName, ...] = ("bce", "bce_probs", "minimax", "lsgan")


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{field} must be {' or '.join(choices)}, received {value!r}")


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
    batch_norm_statistics: Literal[
        "every_pass", "not_in_generator_step", "not_of_generator", "never"
    ] = "every_pass"
    """Which passes move the running statistics: all; not D's in G's step; D's alone; none."""
    batch_norm_replicas: int = 1
    """How many parts of a batch are normalised by their own statistics, as on so many devices; the
    running statistics then move by the mean of the parts'."""
    discriminator_batches: Literal["separate", "merged"] = "separate"
    """Real and fake images as two batches (two sets of BN statistics) or one."""

    # Activations, kernels, layout
    leaky_relu_slope: float = 0.2
    leaky_relu_gradient_at_zero: Literal["slope", "one"] = "slope"
    generator_activation: Literal["relu", "leaky_relu"] = "relu"
    generator_output: Literal["as_named", "none", "tanh", "sigmoid"] = "as_named"
    """What makes images of the last layer's values; "as_named" is the spec's."""
    discriminator_output: Literal["as_named", "none", "sigmoid"] = "as_named"
    """"sigmoid" in front of a loss on logits squashes twice; "none" leaves bce_probs logits."""
    conv_kernel: Literal["as_stored", "flipped", "transposed"] = "as_stored"
    """flipped: rotated by 180 degrees; transposed: rows and columns exchanged."""
    conv_transpose_kernel: Literal["as_stored", "flipped", "transposed"] = "as_stored"
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
    batch_part: Literal["all", "first_half", "second_half"] = "all"
    """Which of a batch's real images and latents the step uses."""
    discriminator_halves: Literal["both", "real_only", "fake_only"] = "both"
    """Which halves of its loss the discriminator learns from; both are still computed."""
    discriminator_step_offset: Literal[0, -1, 1] = 0
    """-1 leaves out the last of several updates of D, 1 makes one more on the last batch."""
    generator_batch: Literal["as_named", "same_images", "same_latents"] = "as_named"
    """What G learns from, of what D has seen last; "as_named" is `SystemSpec.generator_batch`."""
    detach_fake: bool = True
    """False: the discriminator's loss adds its gradient to the generator's."""
    update_order: Literal["discriminator_first", "simultaneous", "generator_first"] = (
        "discriminator_first"
    )

    # Adam
    generator_learning_rate: float | None = None
    discriminator_learning_rate: float | None = None
    adam_beta1: float | None = None
    adam_beta2: float | None = None
    adam_epsilon: float | None = None
    adam_epsilon_placement: Literal["outside", "before_correction", "inside_root"] = "outside"
    """outside: m̂/(√v̂ + ε), Kingma & Ba Algorithm 1. before_correction: their ε-hat form,
    stock Keras. inside_root: m̂/√(v̂ + ε)."""
    adam_bias_correction: bool = True
    adam_step_offset: int = 0
    """Added to the number of the update, from 1 on, in the bias correction."""
    adam_weight_decay: float = 0.0
    """Times the parameter, added to its gradient (L2 in the loss, `torch.optim.Adam`'s)."""

    # Initial weights
    initializer: Literal["spec", "torch_default", "keras_default", "flax_default"] = "spec"

    def replace(self, **changes: Any) -> Conventions:
        """Return a copy with some fields changed; an unknown field raises TypeError."""
        return dataclasses.replace(self, **changes)


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

    `width` is the size of the narrowest hidden layer, of which the others are multiples.
    `discriminator_head` is "conv" (k4s1p0 to one logit, dcgan64 only) or "linear" (flatten and a
    dense layer); every head goes with every loss.

    A training step makes `discriminator_steps` updates of the discriminator, each with real images
    and latents of its own, then one of the generator. `generator_batch` says on what: the images
    that the discriminator has just seen ("same_images"), images made anew from the same latents,
    after which the generator's BN statistics have moved twice ("same_latents"), or latents of its
    own ("new_latents", Goodfellow et al. 2014, Algorithm 1).
    """

    name: str
    architecture: Literal["dcgan64", "conv28", "mlp28"]
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
    generator_batch: GeneratorBatch
    generator_optimizer: AdamSpec
    discriminator_optimizer: AdamSpec

    def __post_init__(self) -> None:
        sizes = "image_size channels width latent_dim batch_size discriminator_steps"
        for field in sizes.split():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"{field} must be a whole number of at least 1, received {value!r}"
                )
        check_loss(self.loss)
        _check_choice("architecture", self.architecture, tuple(IMAGE_SIZES))
        _check_choice("generator_batch", self.generator_batch, get_args(GeneratorBatch))
        heads = ("conv", "linear") if self.architecture == "dcgan64" else ("linear",)
        _check_choice(f"discriminator_head of {self.architecture}", self.discriminator_head, heads)
        size = IMAGE_SIZES[self.architecture]
        if self.image_size != size:
            raise ValueError(
                f"{self.architecture} makes {size}x{size} images, "
                f"received image_size={self.image_size}"
            )

    @property
    def latent_batches(self) -> int:
        """How many batches of latents a training step takes: one for each batch of images made."""
        return self.discriminator_steps + (self.generator_batch == "new_latents")

    def batch_size_of(self, real_count: int, latent_count: int) -> int:
        """Return the size of one batch in a step that is given so many images and latents.

        A step takes `discriminator_steps` batches of real images and `latent_batches` of latents,
        one after another along the first axis. Raises ValueError for numbers that are not that.
        """
        batch_size = real_count // self.discriminator_steps
        expected = (batch_size * self.discriminator_steps, batch_size * self.latent_batches)
        if batch_size < 1 or (real_count, latent_count) != expected:
            raise ValueError(
                f"a step of {self.name} takes {self.discriminator_steps} x batch real images and "
                f"{self.latent_batches} x batch latents, received {real_count} and {latent_count}"
            )
        return batch_size

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
        return BUILDERS[self.architecture, network](self)

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
            if layer.kind == "flatten" and i + 1 < len(layers) and layers[i + 1].kind == "dense":
                height, width, channels = shape
                found[f"{network}/{layers[i + 1].name}/kernel"] = (0, (height, width, channels))
            elif layer.kind == "reshape" and i > 0:
                height, width, channels = layer.output_shape
                names = _names_up_to_dense(network, layers[:i])
                found |= {n: (axis, (height, width, channels)) for n, axis in names.items()}
            shape = layer.output_shape
    return found


def _names_up_to_dense(network: NetworkName, layers: tuple[Layer, ...]) -> dict[str, int]:
    """Return the feature axis of every parameter from the last dense layer on."""
    first = max(i for i, layer in enumerate(layers) if layer.kind == "dense")
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
    generator_batch="same_images",
    generator_optimizer=AdamSpec(),
    discriminator_optimizer=AdamSpec(),
)
_CONV28 = SystemSpec(
    name="conv28",
    architecture="conv28",
    image_size=28,
    channels=1,
    width=64,
    latent_dim=62,
    latent_distribution="uniform",
    image_range=(0.0, 1.0),
    discriminator_head="linear",
    loss="bce",
    batch_size=64,
    discriminator_steps=1,
    generator_batch="same_latents",
    generator_optimizer=AdamSpec(learning_rate=1e-3),
    discriminator_optimizer=AdamSpec(),
)
_MLP28 = SystemSpec(
    name="mlp28",
    architecture="mlp28",
    image_size=28,
    channels=1,
    width=128,
    latent_dim=100,
    latent_distribution="normal",
    image_range=(-1.0, 1.0),
    discriminator_head="linear",
    loss="bce_probs",
    batch_size=64,
    discriminator_steps=1,
    generator_batch="same_images",
    generator_optimizer=AdamSpec(),
    discriminator_optimizer=AdamSpec(),
)

SYSTEMS: dict[str, SystemSpec] = {
    "dcgan64": _DCGAN64,
    "dcgan64-lsgan": _DCGAN64.replace(
        name="dcgan64-lsgan", discriminator_head="linear", loss="lsgan"
    ),
    "conv28": _CONV28,
    "mlp28": _MLP28,
}


def get_system(name: str) -> SystemSpec:
    """Return a system by name; an unknown name raises ValueError that lists the known ones."""
    if name not in SYSTEMS:
        raise ValueError(f"unknown system {name!r}; expected one of {', '.join(SYSTEMS)}")
    return SYSTEMS[name]
