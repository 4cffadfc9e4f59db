"""CIFAR-10's python batches: pickles, unpickled with nothing to import or to call."""

import io
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np

from shared.data.images import DataError
from shared.files.errors import refused_as
from shared.interface import Array

BATCH_NAME = re.compile(r"data_batch_[0-9]{1,4}")
PICKLE_STARTS = tuple(b"\x80" + bytes([protocol]) for protocol in (2, 3, 4, 5))
MAXIMUM_BYTES = 256 * 2**20
"""Largest batch that is read; one of CIFAR-10 has 31 MB, the one of CIFAR-100 155 MB."""
MAXIMUM_INSTRUCTIONS = 2**19
"""Most instructions of a pickle: one of a byte may make an object of sixty. CIFAR-10's have some
sixty thousand, CIFAR-100's images for training a quarter of a million."""
SIZE = 32  # height and width of an image; a row is 32x32 of red, then of green, then of blue

_INSTRUCTIONS = {
    "PROTO", "FRAME", "MARK", "STOP", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "SHORT_BINSTRING", "BINSTRING", "SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES",
    "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE", "EMPTY_LIST", "APPEND", "APPENDS",
    "EMPTY_DICT", "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
}  # fmt: skip
_NAMES = (
    # As NumPy before 2.0 and from 2.0 on calls what makes an array.
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
)


def is_batch(path: Path, head: bytes) -> bool:
    """Tell by the name or the first two bytes whether a file claims to be a batch."""
    return BATCH_NAME.fullmatch(path.name) is not None or head[:2] in PICKLE_STARTS


def read_batch(path: Path) -> Array:
    """Return the images of one batch, uint8 [n, 32, 32, 3]; DataError, which names the file.

    Source: cs.toronto.edu/~kriz/cifar.html. Nothing in the file is called or imported.
    """
    expected = f"a python batch of CIFAR-10, a pickled dict with data of shape (n, {3 * SIZE**2})"
    with refused_as(DataError, path, expected, also=(EOFError, pickle.UnpicklingError)):
        with open(path, "rb") as file:
            content = file.read(MAXIMUM_BYTES + 1)
        if len(content) > MAXIMUM_BYTES:
            raise ValueError(f"more than {MAXIMUM_BYTES:,} bytes")
        _check_instructions(content)
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        data = batch.get(b"data", batch.get("data")) if isinstance(batch, dict) else None
        if not isinstance(data, _StandIn):
            raise ValueError("no array called data")
        images = data.to_array()
        if images.ndim != 2 or images.shape[1] != 3 * SIZE**2 or not len(images):
            raise ValueError(f"data of shape {images.shape}")
    return images.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)


def _check_instructions(content: bytes) -> None:
    # They may name what to call (INST, EXT1, …), or ask for gigabytes in a few bytes.
    for number, (opcode, _, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in _INSTRUCTIONS:
            raise ValueError(f"the instruction {opcode.name}, which no plain data needs")
        if number >= MAXIMUM_INSTRUCTIONS:
            raise ValueError(f"a pickle of more than {MAXIMUM_INSTRUCTIONS:,} instructions")


class _StandIn:
    """What a pickle has in place of each object of NumPy's: what it is called and filled with.

    NumPy's own would take a forged state of a dtype, and numbers for addresses.
    """

    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __call__(self, *arguments: Any) -> "_StandIn":
        return _StandIn(*arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def to_array(self) -> Array:
        """Return the array that was pickled; ValueError for any but bytes in C order."""
        _, shape, dtype, is_fortran, data = self.state
        if not isinstance(dtype, _StandIn) or dtype.arguments[:1] not in (("u1",), (b"u1",)):
            raise ValueError("an array of something else than bytes (u1)")
        if is_fortran:
            raise ValueError("an array that is not in C order")
        return np.frombuffer(data, np.uint8).reshape(shape)


class _TextKeys(dict):
    """A dict of texts: a tuple of tuples that are used again and again takes for ever to hash."""

    __slots__ = ()  # a pickle could set attributes

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, str | bytes):
            raise TypeError(f"a dict with a key of type {type(key).__name__}")
        super().__setitem__(key, value)


class _Unpickler(pickle._Unpickler):
    """Python's unpickler in Python, whose memo is a dict: a number in C's makes it an array."""

    dispatch = pickle._Unpickler.dispatch | {
        pickle.EMPTY_DICT[0]: lambda self: self.append(_TextKeys())
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            shown = repr(f"{module} {name}"[:80])
            raise ValueError(f"the name {shown}, which is not looked up")
        return _StandIn()
