"""The narrow systems that the network cases start from, and what the reference makes of them.

All numbers are float32 numbers, so that both dtypes start from exactly the same point.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from shared.fixtures import load_network_fixture
from shared.fixtures.make_network import representative_inputs
from shared.reference.network import Arrays, forward
from shared.reference.step import StepResult, train_step
from shared.spec import SYSTEMS, Conventions, NetworkName, SystemSpec


@dataclass(frozen=True)
class StartPoint:
    """A state, the images NHWC and latents of one step, and the dtypes that it is good for.

    Good for float32 is only a point without a pre-activation so near a kink that rounding turns
    it; `tests/test_conformance.py` measures the margin.
    """

    spec: SystemSpec
    arrays: Arrays
    real_images: np.ndarray
    latents: np.ndarray
    dtypes: tuple[str, ...]

    @functools.cached_property
    def step(self) -> StepResult:
        """What one step computes, by the float64 reference."""
        return train_step(self.spec, self.arrays, self.real_images, self.latents)

    def output(self, network: NetworkName, *, training: bool) -> np.ndarray:
        """Return the images of the latents or the scores of the real images."""
        x = self.latents if network == "generator" else self.real_images
        c = Conventions()
        return forward(self.spec, network, self.arrays, x, c, training=training).output


BOTH = ("float64", "float32")


def start_points() -> dict[str, StartPoint]:
    """Return every start point by the name that its cases have."""
    small = {"width": 4, "channels": 3, "latent_dim": 10, "batch_size": 7}
    fixture = load_network_fixture()
    from_fixture = (fixture.spec, fixture.arrays, fixture.real_images, fixture.latents)
    linear = _drawn(SYSTEMS["dcgan64-lsgan"].replace(width=4, latent_dim=10, batch_size=3), 1902)
    # A channel without weights: pre-activations of exactly 0 show the gradient at a kink.
    linear.arrays["discriminator/conv_1/kernel"][..., 0] = 0.0
    mlp28 = SYSTEMS["mlp28"].replace(**small)
    two_steps = mlp28.replace(discriminator_steps=2, generator_batch="new_latents")
    return {
        "dcgan64": StartPoint(*from_fixture, BOTH),
        "dcgan64-lsgan": linear,
        # Seven images of three channels: conv28 normalises over the batch alone, and one channel
        # would hide a wrong order of features.
        "conv28": _drawn(SYSTEMS["conv28"].replace(**small)),
        "mlp28": _drawn(mlp28),
        # Goodfellow's Algorithm 1 with k = 2; its kinks are not looked at.
        "mlp28-algorithm-1": _drawn(two_steps, dtypes=("float64",)),
    }


def _drawn(spec: SystemSpec, seed: int = 0, dtypes: tuple[str, ...] = BOTH) -> StartPoint:
    return StartPoint(spec, *representative_inputs(spec, seed, "conformance"), dtypes)
