"""CIFAR-10's python batches: pickles, unpickled with nothing to import or to call."""

import io
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from shared.data.images import DataError
from shared.interface import Array

BATCH_NAME = re.compile(r"data_batch_[0-9]{1,4}")
PICKLE_STARTS = tuple(b"\x80" + bytes([protocol]) for protocol in (2, 3, 4, 5))
MAXIMUM_BYTES = 256 * 2**20
"""Largest batch that is read; one of CIFAR-10 has 31 MB, the one of CIFAR-100 155 MB."""
MAXIMUM_INSTRUCTIONS = 2**19
"""Most instructions of a pickle: one of a byte may make an object of sixty. CIFAR-10's have some
sixty thousand, CIFAR-100's images for training a quarter of a million."""
MAXIMUM_TUPLES = 1000
"""Most tuples: as the key of a dict, one of a million levels would be hashed off the end of
Python's stack. CIFAR-10's have six."""
SIZE = 32  # height and width of an image; a row is 32x32 of red, then of green, then of blue

_TUPLES = ("EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE")
# What these make may be used more than once. A tuple of tuples that were used twice, and so on,
# would take 2**levels to hash.
_SHARED = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE"),
    *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINUNICODE", "BINUNICODE"),
    *("SHORT_BINBYTES", "BINBYTES", "EMPTY_DICT", "EMPTY_LIST", "GLOBAL", "STACK_GLOBAL"),
    *("REDUCE", "BINGET", "LONG_BINGET"),
)
_MEMO = ("BINPUT", "LONG_BINPUT", "MEMOIZE")
_REST = ("PROTO", "FRAME", "MARK", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD", "STOP")
_INSTRUCTIONS = frozenset((*_TUPLES, *_SHARED, *_MEMO, *_REST))

# What damage does to pickletools, to the unpickler and to NumPy.
_DAMAGE = (
    *(pickle.UnpicklingError, EOFError, LookupError, TypeError),
    *(AttributeError, OverflowError, ValueError),
)


def is_batch(path: Path, head: bytes) -> bool:
    """Tell by the name or the first two bytes whether a file claims to be a batch."""
    return BATCH_NAME.fullmatch(path.name) is not None or head[:2] in PICKLE_STARTS


def read_batch(path: Path) -> Array:
    """Return the images of one batch, uint8 [n, 32, 32, 3]; DataError, which names the file.

    Source: cs.toronto.edu/~kriz/cifar.html. Nothing in the file is called or imported.
    """
    expected = f"a python batch of CIFAR-10, a pickled dict with data of shape (n, {3 * SIZE**2})"
    try:
        with open(path, "rb") as file:
            content = file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAXIMUM_BYTES:
        raise DataError(f"{path} is larger than {MAXIMUM_BYTES:,} bytes; expected {expected}")
    try:
        _check_instructions(content)
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except _DAMAGE as error:
        raise DataError(
            f"{path} holds a damaged or foreign pickle: {error}; expected {expected}"
        ) from error
    data = batch.get(b"data", batch.get("data")) if isinstance(batch, dict) else None
    if not isinstance(data, _Array) or data.values is None:
        raise DataError(f"{path} holds no array called data; expected {expected}")
    images = data.values
    if images.ndim != 2 or images.shape[1] != 3 * SIZE**2 or not len(images):
        raise DataError(f"{path} holds data of shape {images.shape}; expected {expected}")
    return images.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)


def _check_instructions(content: bytes) -> None:
    # They may name what to call (INST, EXT1, …), ask for gigabytes in a few bytes, take for ever.
    is_shared: dict[int, bool] = {}  # by place in the memo
    last, tuples = "", 0
    argument: Any
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        name = opcode.name
        if name not in _INSTRUCTIONS:
            _refuse(f"the instruction {name}, which no plain data needs")
        tuples += name in _TUPLES
        if number >= MAXIMUM_INSTRUCTIONS or tuples > MAXIMUM_TUPLES:
            limits = f"{MAXIMUM_INSTRUCTIONS:,} instructions or {MAXIMUM_TUPLES:,} tuples"
            _refuse(f"a pickle of more than {limits}")
        # Keys that are larger could all have one hash.
        if name == "LONG1" and abs(argument) >= 2**63:
            _refuse("a number of more than 64 bits")
        if name in _MEMO:
            place = len(is_shared) if name == "MEMOIZE" else argument
            if place >= MAXIMUM_INSTRUCTIONS:  # the memo is an array of this size
                _refuse(f"a place in the memo beyond {MAXIMUM_INSTRUCTIONS:,}")
            is_shared[place] = last in _SHARED
            continue
        if name in ("BINGET", "LONG_BINGET") and not is_shared.get(argument):
            _refuse("a tuple, or nothing, that is used again")
        if name not in ("PROTO", "FRAME"):
            last = name


def _refuse(found: str) -> NoReturn:
    raise pickle.UnpicklingError(found)


class _Unpickler(pickle.Unpickler):
    # Names are looked up among the stand-ins below. NumPy's own functions are not among them: a
    # forged state of a dtype would make NumPy take numbers for addresses.

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            _refuse(f"the name {f'{module} {name}'[:80]!r}, which is not looked up")


class _NumpyArray:
    """`numpy.ndarray`: no more than a name, as what `_reconstruct` is called with."""

    def __setstate__(self, state: object) -> NoReturn:
        # Without this method, Python would set attributes.
        _refuse("a state for a function or class")


class _Array:
    """A place for an array, whose bytes the pickle brings later."""

    values: Array | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, _Bytes) or is_fortran:
            _refuse("an array of something else than bytes (u1) in C order")
        self.values = np.frombuffer(data, np.uint8).reshape(shape)


class _Bytes:
    """The dtype of single bytes, the only one that is taken."""

    def __setstate__(self, state: object) -> None:
        pass


class _Reconstruct(_NumpyArray):
    def __call__(self, *_: object) -> _Array:
        return _Array()


class _NumpyDtype(_NumpyArray):
    def __call__(self, code: object = None, *_: object) -> _Bytes:
        if code not in ("u1", b"u1"):
            _refuse("a call of something else than NumPy's array of bytes (u1)")
        return _Bytes()


_STAND_INS = {
    # As NumPy before 2.0 and from 2.0 on calls what makes an array.
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy", "ndarray"): _NumpyArray(),
    ("numpy", "dtype"): _NumpyDtype(),
}
