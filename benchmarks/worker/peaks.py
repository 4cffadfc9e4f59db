"""What a perfect step is measured against: the fastest matrix products and additions seen here.

Each worker measures those of its framework. `python -m benchmarks.worker.peaks` prints NumPy's as
JSON: a separate process so that the thread count of NumPy's BLAS, which is read from the
environment at import, is the one of the workers. NumPy's additions have one thread, whatever it is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.plan.configuration import Request

# Of the square matrix products: large enough for all cores, done in under a second.
PRODUCT_SIZE = {"cpu": 1024, "gpu": 8192}
NUMPY_SIZES = (512, 1024, 2048)
NUMPY_REPEATS = 2
# Elements of each of the two float32 arrays of an addition: 256 MiB together on a CPU, 1 GiB on a
# GPU, which no cache that is common holds.
ADDITION_SIZE = {"cpu": 2**25, "gpu": 2**27}
# An addition in place reads both arrays and writes one. It is in place because a CPU that writes
# to an array reads it first, which would count as nothing, and because fresh memory costs the
# kernel's time for every page.
ADDITION_BYTES = 3 * 4


def worker_peaks(framework: Any, request: Request) -> dict[str, float]:
    """Return the fields of a row: the best GFLOP/s of products and GB/s of additions."""
    size, length = PRODUCT_SIZE[request.device], ADDITION_SIZE[request.device]
    products = best_rate(framework.products(request, size), 2.0 * size**3)
    additions = best_rate(framework.additions(request, length), ADDITION_BYTES * length)
    return {"peak_gflops_per_second": products, "bandwidth_gbytes_per_second": additions}


def numpy_peaks() -> dict[str, Any]:
    """Return the best rates of NumPy over sizes and repeats, in GFLOP/s and in GB/s."""
    products = max(
        best_rate(_products(size), 2.0 * size**3)
        for size in NUMPY_SIZES
        for _ in range(NUMPY_REPEATS)
    )
    length = ADDITION_SIZE["cpu"]
    additions = best_rate(_additions(length), ADDITION_BYTES * length)
    return {
        "peak": {
            "method": "NumPy float32 matmul",
            "precision": "float32",
            "gflops_per_second": products,
        },
        "bandwidth": {"method": "NumPy float32 additions in place", "gbytes_per_second": additions},
    }


def _products(size: int) -> Callable[[int], None]:
    left = np.full((size, size), 0.5, np.float32)
    right = left.T.copy()
    product = np.empty_like(left)

    def run(count: int) -> None:
        for _ in range(count):
            np.matmul(left, right, out=product)

    return run


def _additions(length: int) -> Callable[[int], None]:
    total, summand = (np.ones(length, np.float32) for _ in range(2))

    def run(count: int) -> None:
        for _ in range(count):
            np.add(total, summand, out=total)

    return run


def best_rate(run: Callable[[int], None], amount: float) -> float:
    """Return the best rate of what `run` does, in 1e9 a second.

    `run(n)` does it n times and waits, `amount` is that of once: operations or bytes. The best,
    not the median: a peak is what the machine can do when nobody disturbs it.
    """
    run(1)  # warms the caches, starts threads, compiles
    rates = []
    for count in (1, 2, 4):
        started = time.perf_counter()
        run(count)
        rates.append(1e-9 * count * amount / (time.perf_counter() - started))
    return max(rates)


if __name__ == "__main__":
    print(json.dumps(numpy_peaks()))
