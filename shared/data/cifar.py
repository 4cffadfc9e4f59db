"""CIFAR-10's python batches: pickles, read without unpickling (`shared.data.plain_pickle`)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from shared.data.images import DataError, printable
from shared.data.plain_pickle import read_plain_pickle

BATCH_NAME = re.compile(r"data_batch_[0-9]{1,4}")
PICKLE_STARTS = tuple(b"\x80" + bytes([protocol]) for protocol in (2, 3, 4, 5))
MAXIMUM_BYTES = 256 * 2**20
"""Largest batch that is read; one of CIFAR-10 has 31 MB, the one of CIFAR-100 155 MB."""
SIZE = 32  # height and width of an image; a row is 32x32 of red, then of green, then of blue


def is_batch(path: Path, head: bytes) -> bool:
    """Tell by the name or the first two bytes whether a file claims to be a batch."""
    return BATCH_NAME.fullmatch(path.name) is not None or head[:2] in PICKLE_STARTS


def read_batch(path: Path) -> np.ndarray:
    """Return the images of one batch, uint8 [n, 32, 32, 3].

    Source: cs.toronto.edu/~kriz/cifar.html. Nothing in the file is called or imported. Raises
    DataError, which names the file, for anything but a dict with such an array under "data".
    """
    shown = printable(path)
    expected = f"a python batch of CIFAR-10, a pickled dict with data of shape (n, {3 * SIZE**2})"
    try:
        with open(path, "rb") as file:
            content = file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise DataError(f"{shown} cannot be read: {error.strerror}") from error
    if len(content) > MAXIMUM_BYTES:
        raise DataError(f"{shown} is larger than {MAXIMUM_BYTES:,} bytes; expected {expected}")
    try:
        batch = read_plain_pickle(content)
    except ValueError as error:
        raise DataError(f"{shown} holds {error}; expected {expected}") from error
    images = batch.get("data", batch.get(b"data")) if isinstance(batch, dict) else None
    if not isinstance(images, np.ndarray):
        raise DataError(f"{shown} holds no array called data; expected {expected}")
    if images.ndim != 2 or images.shape[1] != 3 * SIZE**2 or not len(images):
        raise DataError(f"{shown} holds data of shape {images.shape}; expected {expected}")
    return images.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)
