"""What the devices tell each other in one step, and how long that takes by itself."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from shared.spec import NetworkName, SystemSpec

WARM_UP_CALLS = 2
CALLS = (5, 200)  # at least, at most
SECONDS = 0.5


@dataclass(frozen=True)
class Exchanges:
    """How many float32 numbers each exchange of a step has, on each device.

    `gathered`: the mean and the variance of each channel of a batch norm layer, once for every
    forward pass. `reduced`: their gradients, once for every backward pass, then the gradients of
    a network's weights, once for every update. PyTorch alone gathers; the others reduce these too.
    """

    gathered: tuple[int, ...]
    reduced: tuple[int, ...]


def exchanges_of_step(spec: SystemSpec) -> Exchanges:
    """Return the exchanges of one step with global batch statistics.

    D learns from a real and a fake batch in each of its updates, and G's update passes through D
    once more. G makes a batch for each of D's updates and one of its own, unless that is D's last.
    """
    updates = {"generator": 1, "discriminator": spec.discriminator_steps}
    own_batch = spec.generator_batch != "same_images"
    forward = {
        "generator": spec.discriminator_steps + own_batch,
        "discriminator": 2 * spec.discriminator_steps + 1,
    }
    backward = {"generator": 1, "discriminator": forward["discriminator"]}
    names: tuple[NetworkName, ...] = ("generator", "discriminator")
    gathered = [size for name in names for size in _statistics(spec, name) * forward[name]]
    reduced = [size for name in names for size in _statistics(spec, name) * backward[name]]
    reduced += [spec.parameter_count(name) for name in names for _ in range(updates[name])]
    return Exchanges(tuple(gathered), tuple(reduced))


def _statistics(spec: SystemSpec, network: NetworkName) -> list[int]:
    """Return how many numbers the statistics of each batch norm layer are, mean and variance."""
    parameters = spec.parameters(network).values()
    return [2 * math.prod(p.shape) for p in parameters if p.name == "mean"]


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
