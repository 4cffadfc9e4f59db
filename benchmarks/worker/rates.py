"""What the device can do at best, by a worker's framework: products and additions a second."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.plan.configuration import Request

# Of the square matrix products: large enough for all cores, done in under a second.
PRODUCT_SIZE = {"cpu": 1024, "gpu": 8192}
SUSTAINED_SECONDS = {"cpu": 0.1, "gpu": 0.5}
REPEATS = 2  # after the first run of that length
# Elements of each of the two float32 arrays of an addition: more than a common cache holds.
ADDITION_SIZE = {"cpu": 2**25, "gpu": 2**27}
# Reads of both arrays and a write; docs/benchmarks.md#how-it-is-measured says why in place.
ADDITION_BYTES = 3 * 4


def best_rate(
    once: Callable[[], Any], amount: float, wait: Callable[[], Any], least_seconds: float
) -> float:
    """Return the best sustained rate of what `once` does, in 1e9 a second.

    `wait` waits for all of it, `amount` is that of once: operations or bytes. Sustained: for at
    least `least_seconds`, as a GPU slows its clock down. The best, not the median: a peak is what
    the machine can do undisturbed.
    """

    def seconds(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            last = once()  # held, because a framework may wait only for what still exists
        wait()
        elapsed = time.perf_counter() - started
        del last
        return elapsed

    seconds(1)  # warms the caches, starts threads, compiles
    count = 1
    while (elapsed := seconds(count)) < least_seconds:
        count *= 2
    return 1e-9 * count * amount / min(elapsed, *(seconds(count) for _ in range(REPEATS)))


def framework_rates(framework: Any, request: Request) -> dict[str, float]:
    """Return the fields of a row: the best GFLOP/s of products and GB/s of additions."""
    device, precision = request.plan.device, request.configuration.precision
    size, length = PRODUCT_SIZE[device], ADDITION_SIZE[device]
    rate = partial(
        best_rate, wait=partial(framework.wait, request), least_seconds=SUSTAINED_SECONDS[device]
    )
    # Random numbers, because equal ones cost a GPU less power, so that it runs faster.
    square = np.random.default_rng(0).random((size, size), np.float32) - np.float32(0.5)
    left = framework.put(request, square, "bfloat16" if precision == "bfloat16" else "float32")
    add = framework.addition(request, length)
    return {
        "peak_gflops_per_second": rate(lambda: left @ left, 2.0 * size**3),
        "bandwidth_gbytes_per_second": rate(add, ADDITION_BYTES * length),
    }
