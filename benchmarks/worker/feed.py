"""Where the batches of a workload come from: the device, the host's memory, or the loader."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.plan.configuration import Request
from shared.data.dataset import Batches, load_dataset
from shared.spec import SystemSpec
from shared.spec.streams import latents, stream

BATCHES = 3  # in rotation, so that no step sees the images of the step before

Batch = tuple[np.ndarray, np.ndarray]
"""Real images NHWC and latents [count, latent_dim] of one step, both float32."""


@dataclass(frozen=True)
class Feed:
    """An endless run of batches in the host's memory.

    `resident` of them, if any, are moved to the device once and stay there in rotation; with 0 each
    batch is moved when its step comes. `only` is the batch of a feed that has no other.
    """

    batches: Iterator[Batch]
    resident: int
    only: Batch | None = None

    def on_device(self, move: Callable[[Batch], tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        """Return the batches as `move` moves them to the device."""
        if self.resident:
            return itertools.cycle([move(next(self.batches)) for _ in range(self.resident)])
        return map(move, self.batches)


def feed_of_one(images: np.ndarray, latents: np.ndarray) -> Feed:
    """Return a feed that holds one batch, on the device."""
    batch = images, latents
    return Feed(itertools.repeat(batch), resident=1, only=batch)


def make_feed(request: Request) -> Feed:
    """Return the feed that a request asks for; DataError where its images cannot be loaded."""
    if request.configuration.input == "loader":
        images = load_dataset(request.plan.data, request.spec).images
        batches = Batches(images, request.spec, request.spec.batch_size, request.plan.seed)
        return Feed(_loaded(request, batches), resident=0)
    rotation = [noise(request.spec, request.plan.seed, i) for i in range(BATCHES)]
    on_device = request.configuration.input == "device"
    return Feed(itertools.cycle(rotation), resident=BATCHES if on_device else 0)


def noise(spec: SystemSpec, seed: int, index: int) -> Batch:
    """Return uniform noise in the image range, and a run's latents."""
    shape = (spec.discriminator_steps * spec.batch_size, *spec.image_shape)
    images = stream(seed, "benchmark_images", index).uniform(*spec.image_range, shape)
    return images.astype(np.float32), _latents(spec, seed, index)


def _loaded(request: Request, batches: Batches) -> Iterator[Batch]:
    """Yield what a training command makes anew in each step: images in a new order, new latents."""
    for step in itertools.count():
        yield batches.images(step), _latents(request.spec, request.plan.seed, step)


def _latents(spec: SystemSpec, seed: int, step: int) -> np.ndarray:
    return latents(spec, seed, step, spec.latent_batches * spec.batch_size).astype(np.float32)
