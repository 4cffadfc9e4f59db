"""What the machine can do at best: matrix products and additions a second, images loaded a second.

Each worker measures products and additions of its framework. `python -m benchmarks.worker.rates`
prints NumPy's as JSON, and `… rates SYSTEM` how fast images reach a training step: in a separate
process, whose BLAS reads its threads from the environment at import, as those of the workers are.
NumPy's additions have one thread, whatever it is.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.plan.configuration import Request
from shared.data.dataset import Batches, load_dataset
from shared.interface import Array
from shared.spec import SYSTEMS

# Of the square matrix products: large enough for all cores, done in under a second.
PRODUCT_SIZE = {"cpu": 1024, "gpu": 8192}
NUMPY_SIZES = (512, 1024, 2048)
NUMPY_REPEATS = 2
SUSTAINED_SECONDS = {"cpu": 0.1, "gpu": 0.5}
REPEATS = 2  # after the first run of that length
# Elements of each of the two float32 arrays of an addition: more than a common cache holds.
ADDITION_SIZE = {"cpu": 2**25, "gpu": 2**27}
# Reads of both arrays and a write; docs/benchmarks.md#how-it-is-measured says why in place.
ADDITION_BYTES = 3 * 4
FILES = 256
FILE_SIZE = (218, 178)  # height and width, those of the usual folder of faces
QUALITY = 90
DECODINGS = 3
BATCH_SECONDS = 1.0


def best_rate(
    once: Callable[[], Any],
    amount: float,
    wait: Callable[[], Any] = lambda: None,
    least_seconds: float = SUSTAINED_SECONDS["cpu"],
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
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    left = framework.put(request, _random_square(size), dtype)
    add = framework.addition(request, length)
    return {
        "peak_gflops_per_second": rate(lambda: left @ left, 2.0 * size**3),
        "bandwidth_gbytes_per_second": rate(add, ADDITION_BYTES * length),
    }


def _random_square(size: int) -> Array:
    """Return a matrix of random numbers: equal ones cost a GPU less power, so it runs faster."""
    return np.random.default_rng(0).random((size, size), np.float32) - np.float32(0.5)


def numpy_rates() -> dict[str, Any]:
    """Return the best rates of NumPy over sizes and repeats, in GFLOP/s and in GB/s."""
    products = []
    for size in NUMPY_SIZES * NUMPY_REPEATS:
        left = _random_square(size)
        multiply = partial(np.matmul, left, left, out=np.empty_like(left))
        products.append(best_rate(multiply, 2.0 * size**3))
    total, summand = (np.ones(ADDITION_SIZE["cpu"], np.float32) for _ in range(2))
    bandwidth = best_rate(partial(np.add, total, summand, out=total), ADDITION_BYTES * len(total))
    peak = {"method": "NumPy float32 matmul", "precision": "float32"}
    moved = {"method": "NumPy float32 additions in place"}
    return {
        "peaks": peak | {"gflops_per_second": max(products)},
        "bandwidths": moved | {"gbytes_per_second": bandwidth},
    }


def loading_rates(system: str, image_size: str) -> dict[str, Any]:
    """Return images per second of decoding JPEG files, and of batches of the images in memory.

    The best of three for decoding. Smooth colours with some noise are as hard as photographs.
    """
    spec = SYSTEMS[system].replace(image_size=int(image_size))
    draw, seconds = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(FILES):
            coarse = Image.fromarray(draw.integers(0, 256, (7, 6, 3), np.uint8))
            pixels = np.asarray(coarse.resize(FILE_SIZE[::-1], Image.Resampling.BICUBIC), np.int16)
            noisy = np.clip(pixels + draw.integers(-16, 17, pixels.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(Path(folder, f"{i:04}.jpg"), quality=QUALITY)
        for _ in range(DECODINGS):
            started = time.perf_counter()
            images = load_dataset(folder, spec).images
            seconds.append(time.perf_counter() - started)
    batches = Batches(images, spec.replace(batch_size=min(spec.batch_size, FILES)), seed=0)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < BATCH_SECONDS:
        count += len(batches.images(count))
    return {
        "files": FILES,
        "height": FILE_SIZE[0],
        "width": FILE_SIZE[1],
        "decoded_per_second": FILES / min(seconds),
        "batched_per_second": count / (time.perf_counter() - started),
    }


if __name__ == "__main__":
    print(json.dumps(loading_rates(*sys.argv[1:]) if sys.argv[1:] else numpy_rates()))
