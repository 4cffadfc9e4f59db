"""What a perfect step is measured against: the fastest float32 matrix product seen here.

`python -m benchmarks.gemm_peak` prints JSON. It is a process of its own so that the thread count
of NumPy's BLAS, which is read from the environment at import, is the one of the workers.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np

METHOD = "NumPy float32 matmul"
SIZES = (512, 1024, 2048)
REPEATS = 8


def measure() -> dict[str, Any]:
    """Return the best rate over sizes and repeats, in GFLOP/s.

    The best, not the median: a peak is what the machine can do when nobody disturbs it.
    """
    best = max(_rate(size) for size in SIZES for _ in range(REPEATS))
    return {"method": METHOD, "precision": "float32", "gflops_per_second": best}


def _rate(size: int) -> float:
    left = np.full((size, size), 0.5, np.float32)
    right = left.T.copy()
    product = np.empty_like(left)
    np.matmul(left, right, out=product)  # warms the caches and starts BLAS' threads
    started = time.perf_counter()
    np.matmul(left, right, out=product)
    return 2e-9 * size**3 / (time.perf_counter() - started)


if __name__ == "__main__":
    print(json.dumps(measure()))
