"""How fast images reach a training step: `python -m benchmarks.worker.loading SYSTEM` prints JSON.

A folder of JPEG files is made, decoded with the threads of the loader, and dealt out in batches.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shared.data.dataset import Batches, load_dataset
from shared.spec import SYSTEMS

FILES = 256
FILE_SIZE = (218, 178)  # height and width, those of the usual folder of faces
QUALITY = 90
REPEATS = 3
BATCH_SECONDS = 1.0


def measure(system: str) -> dict[str, Any]:
    """Return images per second of decoding, and of batches of the images once in memory.

    The best of three for decoding: the first reads files that were just written, from memory.
    """
    spec = SYSTEMS[system]
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder))
        seconds = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            images = load_dataset(folder, spec).images
            seconds.append(time.perf_counter() - started)
    batches = Batches(images, spec, min(spec.batch_size, FILES), seed=0)
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


def make_files(folder: Path) -> None:
    """Write the JPEG files: smooth colours with some noise, as hard to decode as photographs."""
    draw = np.random.default_rng(0)
    for i in range(FILES):
        coarse = Image.fromarray(draw.integers(0, 256, (7, 6, 3), np.uint8))
        pixels = np.asarray(coarse.resize(FILE_SIZE[::-1], Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(pixels + draw.integers(-16, 17, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{i:04}.jpg", quality=QUALITY)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
