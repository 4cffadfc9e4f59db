"""Images in array files: IDX as of MNIST, and .npz.

The headers are checked before the pixels are read, and no more is unpacked than they declare, so
a small file cannot fill the memory.
"""

from __future__ import annotations

import gzip
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from shared.data.images import GIBIBYTE, MAXIMUM_BYTES, DataError, printable

GZIP_MAGIC, ZIP_MAGIC, _IDX_UINT8 = b"\x1f\x8b", b"PK\x03\x04", b"\x00\x00\x08"
IDX_STARTS = (GZIP_MAGIC, _IDX_UINT8[:2])

# What zipfile, its decompressors and NumPy's header parser are known to raise on damaged bytes.
_ARCHIVE_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
    *(OSError, EOFError, ValueError, TypeError, LookupError, SyntaxError, OverflowError),
    RuntimeError,  # encrypted, or a compression method that is not known
)


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def is_idx_name(path: Path) -> bool:
    """Tell by the name whether a file claims to be IDX images: train-images-idx3-ubyte[.gz]."""
    return "idx3" in path.name or "idx4" in path.name


def read_idx(path: Path) -> np.ndarray:
    """Return the images of an IDX file, raw or gzip: uint8 [n, height, width, 1 or 3].

    Two dimensions per image (0x00000803), or three with the channels last (0x00000804). Source:
    yann.lecun.com/exdb/mnist. Raises DataError for all else, and for a byte too many or too few.
    """
    shown = printable(path)
    try:
        with open(path, "rb") as file:
            compressed = file.read(2) == GZIP_MAGIC
        with gzip.open(path) if compressed else open(path, "rb") as stream:
            shape = _idx_shape(shown, stream)
            data = _read_exactly(shown, stream, math.prod(shape))
    except EOFError as error:
        raise DataError(f"{shown} is cut off: its gzip stream has no end") from error
    except (OSError, zlib.error) as error:
        raise DataError(f"{shown} cannot be read: {error or type(error).__name__}") from error
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_npz(path: Path) -> np.ndarray:
    """Return the images of an .npz file: uint8 or float in [0, 1], [n, height, width, 1 or 3].

    The array called images, else the only one of 3 or 4 dimensions. Nothing is unpickled. Raises
    DataError for all else, before the pixels are unpacked where the header tells.
    """
    shown = printable(path)
    try:
        with zipfile.ZipFile(path) as archive:
            name = _choose_array(shown, archive)
            with _open_member(shown, archive, name) as stream:
                shape, fortran_order, dtype = _read_npy_header(shown, name, stream)
                _check_dtype(shown, name, dtype)
                n_h_w_c = _check_shape(shown, shape, dtype.itemsize)
                data = _read_exactly(shown, stream, math.prod(shape) * dtype.itemsize)
    except DataError:
        raise
    except _ARCHIVE_ERRORS as error:
        raise DataError(
            f"{shown} is damaged or no .npz file: {error or type(error).__name__}"
        ) from error
    images = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")
    if dtype.kind == "f":
        _check_unit_range(shown, name, images)
    return images.reshape(n_h_w_c)


def _idx_shape(shown: str, stream: _Readable) -> tuple[int, int, int, int]:
    """Read an IDX header: two zero bytes, type, number of dimensions, big-endian dimensions."""
    magic = bytes(_read_at_most(stream, 4))
    expected = "expected 00000803 (images [n, height, width]) or 00000804 (with channels)"
    if magic == b"\x00\x00\x08\x01":
        raise DataError(f"{shown} holds labels (00000801), not images; {expected}")
    if magic[:3] != _IDX_UINT8 or magic[3:] not in (b"\x03", b"\x04"):
        raise DataError(f"{shown} starts with {magic.hex() or 'nothing'}; {expected}")
    header = _read_at_most(stream, 4 * magic[3])
    if len(header) != 4 * magic[3]:
        raise DataError(f"{shown} ends within its header; expected {magic[3]} dimensions")
    return _check_shape(shown, struct.unpack(f">{magic[3]}I", header), 1)


def _choose_array(shown: str, archive: zipfile.ZipFile) -> str:
    """Return the member "images.npy", else the only array of 3 or 4 dimensions."""
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    if "images.npy" in names:
        return "images.npy"
    shapes = {}
    for name in names:
        with _open_member(shown, archive, name) as stream:
            shapes[name] = _read_npy_header(shown, name, stream)[0]
    candidates = [name for name in names if len(shapes[name]) in (3, 4)]
    if len(candidates) != 1:
        listed = ", ".join(f"{n.removesuffix('.npy')} {shapes[n]}" for n in names[:8]) or "none"
        raise DataError(
            f"{shown} has no array called images and not exactly one of 3 or 4 dimensions; "
            f"arrays: {listed}"
        )
    return candidates[0]


def _open_member(shown: str, archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    # NumPy writes no other. An LZMA header may ask for gigabytes before a byte is unpacked.
    if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{shown}: {name} is packed by another method; expected stored or deflated")
    return archive.open(name)


def _read_npy_header(
    shown: str, name: str, stream: _Readable
) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, Fortran order and dtype; the pixels stay unread, nothing is unpickled."""
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):  # 2.0 and 3.0 are for structured arrays; their headers may be 4 GiB long
        raise DataError(f"{shown}: {name} has npy format {version}; expected (1, 0)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy on headers of Python 2, Python on odd escapes
        try:
            return np.lib.format.read_array_header_1_0(stream)
        except (MemoryError, RecursionError) as error:  # what Python's parser says to deep nesting
            raise DataError(f"{shown}: the header of {name} is nested too deep") from error


def _check_dtype(shown: str, name: str, dtype: np.dtype) -> None:
    if dtype.hasobject:
        raise DataError(f"{shown}: {name} holds Python objects, which are never unpickled")
    if dtype != np.uint8 and not (dtype.kind == "f" and dtype.itemsize <= 8):
        raise DataError(
            f"{shown}: {name} has dtype {dtype}; expected uint8 (0 to 255) or float (0 to 1)"
        )


def _check_unit_range(shown: str, name: str, images: np.ndarray) -> None:
    with np.errstate(invalid="ignore"):
        low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):  # also true of NaN
        raise DataError(
            f"{shown}: {name} holds floats from {low:g} to {high:g}; expected finite ones in "
            "[0, 1], or uint8"
        )


def _check_shape(shown: str, shape: tuple[int, ...], item_size: int) -> tuple[int, int, int, int]:
    """Return the shape as (n, height, width, channels), or raise DataError."""
    expected = "expected [n, height, width] or [n, height, width, 1 or 3]"
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise DataError(f"{shown} holds an array of shape {shape}; {expected}, none of them 0")
    n, height, width, channels = shape if len(shape) == 4 else (*shape, 1)
    if channels not in (1, 3):
        hint = ""
        if height in (1, 3):
            hint = ": the channels come first (NCHW); save images.transpose(0, 2, 3, 1) instead"
        raise DataError(f"{shown} holds an array of shape {shape}; {expected}{hint}")
    if (size := math.prod(shape) * item_size) > MAXIMUM_BYTES:
        raise DataError(
            f"{shown} declares an array of shape {shape}, {size / GIBIBYTE:.1f} GiB; "
            f"expected at most {MAXIMUM_BYTES / GIBIBYTE:.0f} GiB"
        )
    return n, height, width, channels


def _read_at_most(stream: _Readable, count: int) -> bytearray:
    # By the mebibyte: what a header declares must not be allocated before it is there.
    data = bytearray()
    while len(data) < count and (piece := stream.read(min(2**20, count - len(data)))):
        data += piece
    return data


def _read_exactly(shown: str, stream: _Readable, count: int) -> bytearray:
    """Return the rest of a stream; DataError unless it holds `count` bytes. Reads one more."""
    data = _read_at_most(stream, count + 1)
    if len(data) != count:
        found = f"only {len(data):,}" if len(data) < count else "more"
        raise DataError(f"{shown}: the header declares {count:,} bytes of pixels, found {found}")
    return data
