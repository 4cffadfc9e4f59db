"""CIFAR-10's python batches: pickles, whose instructions are read and never obeyed."""

import itertools
import pickletools
import re
from pathlib import Path

import numpy as np

from shared.data.images import DataError
from shared.files.errors import refused_as
from shared.interface import Array

BATCH_NAME = re.compile(r"data_batch_[0-9]{1,4}")
PICKLE_STARTS = tuple(b"\x80" + bytes([protocol]) for protocol in (2, 3, 4, 5))
MAXIMUM_BYTES = 256 * 2**20
"""Largest batch that is read; one of CIFAR-10 has 31 MB, the one of CIFAR-100 155 MB."""
MAXIMUM_INSTRUCTIONS = 2**19
"""Most instructions that are read: CIFAR-10's pickles have some sixty thousand, CIFAR-100's images
for training a quarter of a million."""
SIZE = 32  # height and width of an image
ROW = 3 * SIZE**2  # bytes of an image: 32x32 of red, then of green, then of blue

# Their arguments are no data: the version, lengths, and places in the memo.
_NO_DATA = ("PROTO", "FRAME", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET")
_TRUTHS = {"NEWFALSE": False, "NEWTRUE": True}
_ABSENT = (None, "numpy", "dtype", "numpy dtype")  # no argument; named once, then by a place


def is_batch(path: Path, head: bytes) -> bool:
    """Tell by the name or the first two bytes whether a file claims to be a batch."""
    return BATCH_NAME.fullmatch(path.name) is not None or head[:2] in PICKLE_STARTS


def read_batch(path: Path) -> Array:
    """Return the images of one batch, uint8 [n, 32, 32, 3]; DataError, which names the file.

    Source: cs.toronto.edu/~kriz/cifar.html. Nothing in the file is called or imported.
    """
    expected = f"a python batch of CIFAR-10, a pickled dict with data of shape (n, {ROW})"
    with refused_as(DataError, path, expected):
        with open(path, "rb") as file:
            content = file.read(MAXIMUM_BYTES + 1)
        if len(content) > MAXIMUM_BYTES:
            raise ValueError(f"more than {MAXIMUM_BYTES:,} bytes")
        images = _pixels(content)
    return images.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)


def _pixels(content: bytes) -> Array:
    """Return the array called data of a pickle, uint8 [n, ROW]; ValueError where there is none."""
    read = itertools.islice(pickletools.genops(content), MAXIMUM_INSTRUCTIONS)
    arguments = [_TRUTHS.get(i.name, a) for i, a, _ in read if i.name not in _NO_DATA]
    values = [value for value in arguments if value not in _ABSENT]
    texts = {i: value for i, value in enumerate(values) if isinstance(value, str | bytes)}
    key = min((i for i, text in texts.items() if text in ("data", b"data")), default=len(values))
    end = min((i for i, text in texts.items() if i > key and len(text) >= ROW), default=key)
    # NumPy pickles version, shape, dtype and its state, whether in Fortran's order, and the bytes.
    match values[max(end - 12, 0) : end + 1]:
        case [1, count, row, "u1", 0, 1, 3, "|", -1, -1, 0, False, str() | bytes() as data]:
            pixels = data.encode("latin-1") if isinstance(data, str) else data
            if row == ROW and len(pixels) == count * ROW:
                return np.frombuffer(pixels, np.uint8).reshape(count, ROW)
    raise ValueError(f"no array of bytes (u1) called data, {ROW} in each row, in C order")
