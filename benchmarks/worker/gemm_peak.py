"""What a perfect step is measured against: NumPy's fastest product and addition seen here.

`python -m benchmarks.worker.gemm_peak` prints JSON. It is a process of its own so that the thread
count of NumPy's BLAS, which is read from the environment at import, is the one of the workers.
Additions have one thread, whatever it is.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np

from benchmarks.worker.peaks import ADDITION_BYTES, ADDITION_SIZE, best_rate

PRODUCTS = "NumPy float32 matmul"
ADDITIONS = "NumPy float32 additions in place"
SIZES = (512, 1024, 2048)
REPEATS = 8


def measure() -> dict[str, Any]:
    """Return the best rates over sizes and repeats, in GFLOP/s and in GB/s.

    The best, not the median: a peak is what the machine can do when nobody disturbs it.
    """
    best = max(_rate(size) for size in SIZES for _ in range(REPEATS))
    return {
        "peak": {"method": PRODUCTS, "precision": "float32", "gflops_per_second": best},
        "bandwidth": {"method": ADDITIONS, "gbytes_per_second": _bandwidth(ADDITION_SIZE["cpu"])},
    }


def _rate(size: int) -> float:
    left = np.full((size, size), 0.5, np.float32)
    right = left.T.copy()
    product = np.empty_like(left)
    np.matmul(left, right, out=product)  # warms the caches and starts BLAS' threads
    started = time.perf_counter()
    np.matmul(left, right, out=product)
    return 2e-9 * size**3 / (time.perf_counter() - started)


def _bandwidth(length: int) -> float:
    total, part = (np.ones(length, np.float32) for _ in range(2))

    def run(count: int) -> None:
        for _ in range(count):
            np.add(total, part, out=total)

    return best_rate(run, ADDITION_BYTES * length)


if __name__ == "__main__":
    print(json.dumps(measure()))
