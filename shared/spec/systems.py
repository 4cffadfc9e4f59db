"""The systems as data: sizes, losses, optimizers, the order of a step, conventions.

Everything an implementation has to agree on stands here and in `shared.spec.architectures`, and
nothing about how a framework does it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

from shared.spec.architectures import IMAGE_SIZES, Entries, conv28, dcgan64, mlp28
from shared.spec.conventions import Conventions
from shared.spec.entries import MAXIMUM_NUMBERS, ended_for, entries_from, narrowest, network_layers
from shared.spec.layers import NETWORKS, Layer, NetworkName, Parameter
from shared.spec.optimizers import AdamSpec, OptimizerSpec, optimizer_from_dict, optimizer_to_dict

GeneratorBatch = Literal["same_images", "same_latents", "new_latents"]
LossName = Literal["bce", "bce_probs", "minimax", "lsgan"]
LOSS_NAMES: tuple[LossName, ...] = ("bce", "bce_probs", "minimax", "lsgan")
_CUSTOM_FIELDS = ("generator_layers", "discriminator_layers", "conventions", "names")


def check_choice(what: str, value: Any, choices: Iterable[Any]) -> Any:
    """Return a value; one that is none of the choices raises ValueError that lists them."""
    if value not in choices:
        expected = ", ".join(map(str, choices))
        raise ValueError(f"unknown {what} {value!r}; expected one of {expected}")
    return value


@dataclass(frozen=True)
class SystemSpec:
    """One GAN system: everything needed to build and train it, in no framework's terms.

    `width` is the size of the narrowest hidden layer, of which the others are multiples.
    `discriminator_head` is "conv" (k4s1p0 to one logit, dcgan64 only) or "linear" (flatten and a
    dense layer); every head goes with every loss.

    A training step makes `discriminator_steps` updates of the discriminator, each with real images
    and latents of its own, then one of the generator. That one learns from `generator_batch`: the
    images that the discriminator has just seen ("same_images"), images made anew from the same
    latents, after which the generator's BN statistics have moved twice ("same_latents"), or latents
    of its own ("new_latents", Goodfellow et al. 2014, Algorithm 1).

    The architecture "custom" has its layers in `generator_layers` and `discriminator_layers`;
    another `width` changes the features of all hidden ones in proportion. `conventions` are those
    that it has of its own, as pairs of a field of `Conventions` and its value. `names` are those
    of layers in files of a framework: pairs such as ("torch.generator.dense_1", "main.0").
    """

    name: str
    architecture: Literal["dcgan64", "conv28", "mlp28", "custom"]
    image_size: int
    channels: int
    width: int
    latent_dim: int
    latent_distribution: Literal["normal", "uniform", "uniform_0_1"]
    image_range: tuple[float, float]
    discriminator_head: Literal["conv", "linear"]
    loss: LossName
    batch_size: int
    discriminator_steps: int
    generator_batch: GeneratorBatch
    generator_optimizer: OptimizerSpec
    discriminator_optimizer: OptimizerSpec
    generator_layers: Entries = ()
    discriminator_layers: Entries = ()
    conventions: tuple[tuple[str, Any], ...] = ()
    names: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        sizes = "image_size channels width latent_dim batch_size discriminator_steps"
        for name in sizes.split():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, received {value!r}")
        if not self.image_range[0] < self.image_range[1]:
            raise ValueError(f"image_range needs its lower end first, received {self.image_range}")
        check_choice("loss", self.loss, LOSS_NAMES)
        check_choice("architecture", self.architecture, (*IMAGE_SIZES, "custom"))
        check_choice("generator_batch", self.generator_batch, get_args(GeneratorBatch))
        if self.architecture == "custom":
            self.layers("generator"), self.layers("discriminator")  # or a ValueError
            return
        if any(getattr(self, field) for field in _CUSTOM_FIELDS):
            raise ValueError(f"{self.architecture} has its own layers and conventions")
        heads = ("conv", "linear") if self.architecture == "dcgan64" else ("linear",)
        check_choice(f"discriminator_head of {self.architecture}", self.discriminator_head, heads)
        image_sizes = IMAGE_SIZES[self.architecture]
        check_choice(f"image_size of {self.architecture}", self.image_size, image_sizes)

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
        return _layers(self, network)

    def _entries(self) -> tuple[Entries, Entries]:
        match self.architecture:
            case "dcgan64":
                return dcgan64(self.width, self.channels, self.image_size, self.discriminator_head)
            case "conv28":
                return conv28(self.width, self.channels)
            case "mlp28":
                return mlp28(self.width, self.channels)
        return self.generator_layers, self.discriminator_layers

    def adam(self, network: NetworkName) -> AdamSpec:
        """Return the settings of a network's Adam; ValueError where it has another optimizer."""
        optimizer = getattr(self, f"{network}_optimizer")
        if optimizer_to_dict(optimizer).keys() != optimizer_to_dict(AdamSpec()).keys():
            raise ValueError(f"the {network} has {optimizer}, expected AdamSpec and no more")
        return optimizer

    def own_conventions(self, conventions: Conventions) -> Conventions:
        """Return conventions with the system's own in place of canonical ones."""
        own = {name: conventions.or_own(name, value) for name, value in self.conventions}
        return conventions.replace(**own) if own else conventions

    def name_in(self, kind: str, network: NetworkName, layer: Layer, usual: str) -> str:
        """Return what a layer is called in a kind of file: as `names` have it, or as is usual."""
        return dict(self.names).get(f"{kind}.{network}.{layer.name}", usual)

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
        """Return the spec as plain JSON data; only a custom one has layers and conventions."""
        data = dataclasses.asdict(self)
        for network in NETWORKS:
            data[f"{network}_optimizer"] = optimizer_to_dict(getattr(self, f"{network}_optimizer"))
            entries = getattr(self, f"{network}_layers")
            data[f"{network}_layers"] = [entry.to_dict() for entry in entries]
        data |= {"conventions": dict(self.conventions), "names": dict(self.names)}
        left_out = () if self.architecture == "custom" else _CUSTOM_FIELDS
        return {name: value for name, value in data.items() if name not in left_out}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SystemSpec:
        """Rebuild a spec from `to_dict`.

        Data of an untrusted file is for `shared.files.system_file.stored_system`.
        """
        given = data | {"image_range": tuple(data["image_range"])}
        for network in NETWORKS:
            given[f"{network}_optimizer"] = optimizer_from_dict(data[f"{network}_optimizer"])
            given[f"{network}_layers"] = entries_from(data.get(f"{network}_layers", ()))
        for pairs in ("conventions", "names"):
            given[pairs] = tuple(sorted(data.get(pairs, {}).items()))
        return cls(**given)


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
_LSGAN = _DCGAN64.replace(name="dcgan64-lsgan", discriminator_head="linear", loss="lsgan")
_CONV28 = _DCGAN64.replace(
    name="conv28",
    architecture="conv28",
    image_size=28,
    channels=1,
    latent_dim=62,
    latent_distribution="uniform",
    image_range=(0.0, 1.0),
    discriminator_head="linear",
    batch_size=64,
    generator_batch="same_latents",
    generator_optimizer=AdamSpec(learning_rate=1e-3),
)
_MLP28 = _DCGAN64.replace(
    name="mlp28",
    architecture="mlp28",
    image_size=28,
    channels=1,
    width=128,
    discriminator_head="linear",
    loss="bce_probs",
    batch_size=64,
)
SYSTEMS = {spec.name: spec for spec in (_DCGAN64, _LSGAN, _CONV28, _MLP28)}


@functools.lru_cache(1024)
def _layers(spec: SystemSpec, network: NetworkName) -> tuple[Layer, ...]:
    """Return `spec.layers(network)`, which is asked for in every pass."""
    i = NETWORKS.index(check_choice("network", network, NETWORKS))
    generator, discriminator = spec._entries()
    given = generator, ended_for(spec.loss, discriminator)
    part = Fraction(spec.width, min(map(narrowest, given)))
    shape, expected = (((spec.latent_dim,), spec.image_shape), (spec.image_shape, (1,)))[i]
    most = MAXIMUM_NUMBERS if spec.architecture == "custom" else math.inf
    try:
        return network_layers(given[i], shape, expected, part, most)
    except ValueError as error:
        raise ValueError(f"{network}, {error}") from error
