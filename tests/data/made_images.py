"""Images that are made here, files of them byte by byte, and a filter from its definition."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from shared.data.dataset import load_dataset
from shared.spec import SYSTEMS

COLOUR = SYSTEMS["dcgan64"]
GREY = COLOUR.replace(channels=1)
NOISE = np.random.default_rng(20).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


def one_image(folder: Path, spec=COLOUR) -> np.ndarray:
    images = load_dataset(folder, spec).images
    assert images.shape == (1, *spec.image_shape)
    assert images.dtype == np.uint8
    return images[0]


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def flat(colour) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (64, 64, 3)).copy()


def triangle_weights(old: int, new: int) -> np.ndarray:
    """Antialiased bilinear resizing of one axis as a matrix [new, old], from its definition.

    A triangle about each new pixel's centre, whose half-width is the larger of an old and a new
    pixel; its weights add up to 1, at the borders too.
    """
    scale = old / new
    distances = (np.arange(new)[:, None] + 0.5) * scale - (np.arange(old) + 0.5)
    weights = np.maximum(0, 1 - np.abs(distances) / max(1.0, scale))
    return weights / weights.sum(axis=1, keepdims=True)


def idx(pixels: np.ndarray) -> bytes:
    """An IDX file after the description at yann.lecun.com/exdb/mnist."""
    return (
        bytes([0, 0, 8, pixels.ndim])
        + b"".join(size.to_bytes(4, "big") for size in pixels.shape)
        + pixels.tobytes()
    )


def npy(shape: str, data: bytes = b"", descr: str = "|u1", version: bytes = b"\x01\x00") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    size = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + version + size + header + data
