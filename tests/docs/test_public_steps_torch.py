"""Whole steps of public GANs in PyTorch, written anew in its modules, against their system files.

The files are tests/docs/public/*.toml and docs/examples/d2l.toml; where dcgan64 and options say
all, there is none. Dropout, which the reference has not, is left out. In float64, from one state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from shared.files.system_file import read_system
from shared.framework_adapter import IN_PYTORCH
from shared.spec import NETWORKS, SYSTEMS, SystemSpec, flattened_pixels, optimizer_name
from tests import ROOT
from tests.docs.test_system_files import BATCH, EXAMPLES
from tests.docs.test_system_steps import largest_difference

PUBLIC = ROOT / "tests" / "docs" / "public"
# Measured 2e-11 at most, in running means, which carry biases that BN takes away; D's halves
# summed where they are averaged: 1.
BOUND = 1e-9


def block(*parts: Any, norm: float | None = 1e-5, leaky: bool = False) -> list[Any]:
    """Return layers with a batch norm, of the features that the last of them makes, and a kink."""
    from torch import nn

    own = next(p for p in reversed(parts) if hasattr(p, "weight"))
    features = getattr(own, "out_channels", None) or own.out_features
    kind = nn.BatchNorm2d if hasattr(own, "out_channels") else nn.BatchNorm1d
    norms = [] if norm is None else [kind(features, norm)]
    return [*parts, *norms, nn.LeakyReLU(0.2) if leaky else nn.ReLU()]


def dcgan(
    z: int, c: int, w: int, biases: bool = False, ends: bool = False, norm_first: bool = False
) -> tuple[Any, Any]:
    """Return the two networks of DCGAN for 64 pixels."""
    from torch import nn

    up, down = nn.ConvTranspose2d, nn.Conv2d
    generator = [nn.Unflatten(1, (z, 1, 1)), *block(up(z, 8 * w, 4, 1, 0, bias=biases))]
    for i in (8, 4, 2):
        generator += block(up(i * w, i * w // 2, 4, 2, 1, bias=biases))
    generator += [up(w, c, 4, 2, 1, bias=ends), nn.Tanh()]
    first = 1e-5 if norm_first else None
    discriminator = block(down(c, w, 4, 2, 1, bias=ends), norm=first, leaky=True)
    for i in (1, 2, 4):
        discriminator += block(down(i * w, 2 * i * w, 4, 2, 1, bias=biases), leaky=True)
    discriminator += [down(8 * w, 1, 4, 1, 0, bias=ends), nn.Flatten(0)]
    return nn.Sequential(*generator), nn.Sequential(*discriminator)


def upsampling(first_norm: bool) -> Callable[[int], tuple[Any, Any]]:
    """Return a maker of PyTorch-GAN's convolutional pair for 32 pixels."""

    def make(w: int) -> tuple[Any, Any]:
        from torch import nn

        layers = [nn.Linear(100, 8 * w * 64), nn.Unflatten(1, (8 * w, 8, 8))]
        layers += [nn.BatchNorm2d(8 * w)] if first_norm else []
        for inputs, outputs in ((8 * w, 8 * w), (8 * w, 4 * w)):
            conv = nn.Conv2d(inputs, outputs, 3, 1, 1)
            layers += block(nn.Upsample(scale_factor=2), conv, norm=0.8, leaky=True)
        generator = nn.Sequential(*layers, nn.Conv2d(4 * w, 1, 3, 1, 1), nn.Tanh())
        layers, inputs = [], 1
        for outputs in (w, 2 * w, 4 * w, 8 * w):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.LeakyReLU(0.2)]
            layers += [nn.BatchNorm2d(outputs, 0.8)] if inputs > 1 else []
            inputs = outputs
        return generator, nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * w, 1), nn.Flatten(0))

    return make


def dense(w: int) -> tuple[Any, Any]:
    """Return PyTorch-GAN's gan."""
    from torch import nn

    generator = [nn.Linear(100, w), nn.LeakyReLU(0.2)]
    for i in (1, 2, 4):
        generator += block(nn.Linear(i * w, 2 * i * w), norm=0.8, leaky=True)
    generator += [nn.Linear(8 * w, 784), nn.Tanh(), nn.Unflatten(1, (1, 28, 28))]
    sizes, discriminator = [784, 4 * w, 2 * w], [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        discriminator += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]
    discriminator += [nn.Linear(2 * w, 1), nn.Flatten(0)]
    return nn.Sequential(*generator), nn.Sequential(*discriminator)


def infogan(w: int) -> tuple[Any, Any]:
    """Return the pair of TwistedW's GAN for 28 pixels."""
    from torch import nn

    generator = [
        *block(nn.Linear(62, 16 * w)),
        *block(nn.Linear(16 * w, 98 * w)),
        nn.Unflatten(1, (2 * w, 7, 7)),
        *block(nn.ConvTranspose2d(2 * w, w, 4, 2, 1)),
        *(nn.ConvTranspose2d(w, 1, 4, 2, 1), nn.Sigmoid()),
    ]
    discriminator = [
        *block(nn.Conv2d(1, w, 4, 2, 1), norm=None, leaky=True),
        *block(nn.Conv2d(w, 2 * w, 4, 2, 1), leaky=True),
        nn.Flatten(),
        *block(nn.Linear(98 * w, 16 * w), leaky=True),
        *(nn.Linear(16 * w, 1), nn.Flatten(0)),
    ]
    return nn.Sequential(*generator), nn.Sequential(*discriminator)


@dataclass(frozen=True)
class Public:
    """A public loop: its networks, its loss of scores and a label, and the order of its step.

    `generator`: on which images it learns, as in a system file; `average`: D's halves are; `first`:
    the generator learns first; `rates`: of the generator's Adam and of the discriminator's.
    """

    networks: Callable[[int], tuple[Any, Any]]
    system: str | SystemSpec
    loss: str = "probabilities"
    generator: str = "same_images"
    average: bool = False
    first: bool = False
    rates: tuple[float, float] = (2e-4, 2e-4)
    width: int = 2

    @property
    def spec(self) -> SystemSpec:
        if isinstance(self.system, SystemSpec):
            return self.system.replace(width=self.width, batch_size=BATCH)
        folder = EXAMPLES if self.system == "d2l" else PUBLIC
        spec = read_system(folder / f"{self.system}.toml")
        return spec.replace(width=self.width, batch_size=BATCH)

    def loss_of(self, scores: Any, label: float) -> Any:
        import torch
        from torch import nn

        labels = torch.full_like(scores, label)
        match self.loss:
            case "probabilities":
                return nn.BCELoss()(torch.sigmoid(scores), labels)
            case "logits":
                return nn.BCEWithLogitsLoss()(scores, labels)
            case "summed":
                return nn.BCEWithLogitsLoss(reduction="sum")(scores, labels)
        return nn.MSELoss()(scores, labels)

    def step(self, spec: SystemSpec, arrays: dict, images: np.ndarray, z: np.ndarray) -> Any:
        import torch

        pair = self.networks(self.width)
        held = {
            n: load(spec, n, net.double(), arrays) for n, net in zip(NETWORKS, pair, strict=True)
        }
        adams = [
            torch.optim.Adam(net.parameters(), lr=rate, betas=(0.5, 0.999))
            for net, rate in zip(pair, self.rates, strict=True)
        ]
        real, latents = torch.tensor(images).permute(0, 3, 1, 2), torch.tensor(z)
        losses: dict[str, float] = {}

        def learn(name: str, fake: Any = None) -> Any:
            """Update one network; return the images that the generator has made."""
            g, d = pair
            if name == "generator":
                last = latents[-BATCH:]
                fake = fake if self.generator == "same_images" and fake is not None else g(last)
                loss = self.loss_of(d(fake), 1.0)
            else:
                fake = fake if self.first else g(latents[:BATCH])
                loss = self.loss_of(d(real), 1.0) + self.loss_of(d(fake.detach()), 0.0)
                loss = loss / 2 if self.average else loss
            adam = adams[NETWORKS.index(name)]
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses[name] = loss.item()
            return fake

        fake = None
        for name in NETWORKS if self.first else reversed(NETWORKS):
            fake = learn(name, fake)
        found: dict[str, np.ndarray] = {}
        for network, adam in zip(NETWORKS, adams, strict=True):
            for name, tensor in held[network].items():
                found[name] = canonical(spec, name, tensor)
                for moment, key in (("m", "exp_avg"), ("v", "exp_avg_sq")):
                    if tensor in adam.state:
                        kept = adam.state[tensor][key]
                        found[optimizer_name(name, moment)] = canonical(spec, name, kept)
        return (losses["discriminator"], losses["generator"]), found


def load(spec: SystemSpec, network: str, net: Any, arrays: dict) -> dict[str, Any]:
    """Give a network the arrays of the spec; return its tensors by their names."""
    from pytorch_impl.checkpoint import to_native

    layers = [layer for layer in spec.layers(network) if layer.parameters]
    modules = [m for m in net if any(True for _ in m.parameters(recurse=False))]
    found = {}
    for layer, module in zip(layers, modules, strict=True):
        for p in layer.parameters:
            name, tensor = f"{network}/{layer.name}/{p.name}", getattr(module, IN_PYTORCH[p.name])
            tensor.data = to_native(arrays[name], flattened_pixels(spec).get(name))
            found[name] = tensor
    return found


def canonical(spec: SystemSpec, name: str, tensor: Any) -> np.ndarray:
    from pytorch_impl.checkpoint import to_canonical

    return to_canonical(tensor, flattened_pixels(spec).get(name))


def system(**changes: Any) -> SystemSpec:
    return SYSTEMS["dcgan64"].replace(loss="bce_probs", **changes)


def pair(z: int, c: int, **own: bool) -> Callable[[int], tuple[Any, Any]]:
    return lambda w: dcgan(z, c, w, **own)


LOOPS = {
    "pytorch/examples": Public(pair(100, 3), system()),
    "lightning-bolts": Public(
        pair(100, 1), system(channels=1, generator_batch="new_latents"), generator="new_latents"
    ),
    "PyTorch-GAN dcgan": Public(upsampling(True), "pytorch_gan_dcgan", average=True, first=True),
    "PyTorch-GAN lsgan": Public(
        upsampling(False), "pytorch_gan_lsgan", "squares", average=True, first=True
    ),
    "PyTorch-GAN gan": Public(dense, "pytorch_gan_gan", average=True, first=True),
    "d2l": Public(
        pair(100, 3, norm_first=True),
        "d2l",
        "summed",
        generator="same_latents",
        average=True,
        rates=(0.005, 0.005),
    ),
    "LynnHo": Public(pair(128, 3, ends=True), "lynnho_pytorch", "logits", generator="new_latents"),
    "znxlwm": Public(pair(100, 1, biases=True, ends=True), "znxlwm", generator="new_latents"),
    "TwistedW": Public(
        infogan,
        SYSTEMS["conv28"].replace(loss="bce_probs", latent_distribution="uniform_0_1"),
        generator="same_latents",
        rates=(1e-3, 2e-4),
    ),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_public_step_in_pytorch(name: str) -> None:
    pytest.importorskip("torch")
    loop = LOOPS[name]
    assert largest_difference(loop.spec, loop.step) <= BOUND


@pytest.mark.parametrize("path", sorted(PUBLIC.glob("*.toml")), ids=lambda path: path.stem)
def test_a_public_system_has_forty_lines(path: Any) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 40
