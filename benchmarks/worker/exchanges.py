"""What the devices exchange in one step, and how long that takes by itself."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from shared.spec import NETWORKS, SystemSpec

WARM_UP_CALLS = 2
CALLS = (5, 200)  # at least, at most
SECONDS = 0.5


@dataclass(frozen=True)
class Exchanges:
    """How many float32 numbers each exchange of a step has, on each device.

    `gathered`: the mean and the variance of each channel of a batch norm layer, once for every
    forward pass. `reduced_statistics`: their gradients, once for every backward pass.
    `reduced_gradients`: those of a network's weights, once for every update. PyTorch alone gathers;
    the others reduce all of them.
    """

    gathered: tuple[int, ...]
    reduced_statistics: tuple[int, ...]
    reduced_gradients: tuple[int, ...]

    @property
    def reduced(self) -> tuple[int, ...]:
        """Everything that is reduced."""
        return self.reduced_statistics + self.reduced_gradients


def exchanges_of_step(spec: SystemSpec) -> Exchanges:
    """Return the exchanges of one step with global batch statistics.

    D learns from a real and a fake batch in each of its updates, and G's update passes through D
    once more. G makes a batch for each of D's updates and its own one, unless that is D's last.
    """
    own_batch = spec.generator_batch != "same_images"
    passes = 2 * spec.discriminator_steps + 1
    forward = {"generator": spec.discriminator_steps + own_batch, "discriminator": passes}
    backward = {"generator": 1, "discriminator": passes}
    updates = {"generator": 1, "discriminator": spec.discriminator_steps}
    sizes = {  # the numbers of each batch norm layer, mean and variance
        network: [
            2 * math.prod(p.shape) for p in spec.parameters(network).values() if p.name == "mean"
        ]
        for network in NETWORKS
    }
    return Exchanges(
        tuple(size for network in NETWORKS for size in sizes[network] * forward[network]),
        tuple(size for network in NETWORKS for size in sizes[network] * backward[network]),
        tuple(
            spec.parameter_count(network) for network in NETWORKS for _ in range(updates[network])
        ),
    )


def measure(communicate: Callable[[], None]) -> float:
    """Return the median milliseconds of the exchanges of one step, of calls in half a second."""
    for _ in range(WARM_UP_CALLS):  # the first ones compile
        communicate()
    times: list[float] = []
    deadline = time.perf_counter() + SECONDS
    while len(times) < CALLS[0] or (len(times) < CALLS[1] and time.perf_counter() < deadline):
        started = time.perf_counter()
        communicate()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)
