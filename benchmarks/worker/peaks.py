"""What a framework reaches at best on this device: matrix products, and memory bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.plan.request import Request
from benchmarks.worker.workloads import Framework

# Of the square matrix products: large enough for all cores, done in under a second.
PRODUCT_SIZE = {"cpu": 1024, "gpu": 8192}
# Elements of each of the two float32 arrays of an addition: 256 MiB together on a CPU, 1 GiB on a
# GPU, which no cache that is common holds.
ADDITION_SIZE = {"cpu": 2**25, "gpu": 2**27}
# An addition in place reads both arrays and writes one. It is in place because a CPU that writes
# to an array reads it first, which would count as nothing, and because fresh memory costs the
# kernel's time for every page.
ADDITION_BYTES = 3 * 4


def of_worker(framework: Framework, request: Request) -> dict[str, float]:
    """Return the fields of a row: the best GFLOP/s of products and GB/s of additions."""
    size, length = PRODUCT_SIZE[request.device], ADDITION_SIZE[request.device]
    products = best_rate(framework.products(request, size), 2.0 * size**3)
    additions = best_rate(framework.additions(request, length), ADDITION_BYTES * length)
    return {"peak_gflops_per_second": products, "bandwidth_gbytes_per_second": additions}


def best_rate(run: Callable[[int], None], amount: float) -> float:
    """Return the best rate of what `run` does, in 1e9 a second.

    `run(n)` does it n times and waits, `amount` is that of once: operations or bytes. The best,
    not the median: a peak is what the machine can do when nobody disturbs it.
    """
    run(1)
    rates = []
    for count in (1, 2, 4):
        started = time.perf_counter()
        run(count)
        rates.append(1e-9 * count * amount / (time.perf_counter() - started))
    return max(rates)
