"""Images in array files: IDX as of MNIST, .npz, and CIFAR-10's python batches.

A small file cannot fill the memory. A batch is a pickle, whose instructions are read, not obeyed.
"""

import contextlib
import gzip
import itertools
import math
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from shared.data.images import check_memory
from shared.files.errors import InputError, refused_as
from shared.interface import Array

Stream = IO[bytes] | gzip.GzipFile
Header = tuple[
    tuple[int, ...], bool, np.dtype
]  # an array's shape, whether it is in Fortran's order
GZIP_MAGIC, ZIP_MAGIC, _IDX_UINT8 = b"\x1f\x8b", b"PK\x03\x04", b"\x00\x00\x08"
IDX_STARTS = (GZIP_MAGIC, _IDX_UINT8[:2])
_CHUNK = 2**20  # bytes that are unpacked at once: memory grows with what a file really holds

BATCH_NAME = re.compile(r"data_batch_[0-9]{1,4}")
PICKLE_STARTS = tuple(b"\x80" + bytes([protocol]) for protocol in (2, 3, 4, 5))
LARGEST_BATCH = 256 * 2**20
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


def is_idx_name(path: Path) -> bool:
    """Tell by the name whether a file claims to be IDX images: train-images-idx3-ubyte[.gz]."""
    return "idx3" in path.name or "idx4" in path.name


def is_batch(path: Path, head: bytes) -> bool:
    """Tell by the name or the first two bytes whether a file claims to be a batch."""
    return BATCH_NAME.fullmatch(path.name) is not None or head[:2] in PICKLE_STARTS


def read_idx(path: Path) -> Array:
    """Return the images of an IDX file (0x00000803, 0x00000804), raw or gzip, as `read_npz` does.

    Source: yann.lecun.com/exdb/mnist. Raises InputError, also for a byte too many or too few.
    """
    with refused_as(path, "a whole IDX file"):
        with open(path, "rb") as file:
            compressed = file.read(2) == GZIP_MAGIC
        with gzip.open(path) if compressed else open(path, "rb") as stream:
            header = (_idx_shape(path, stream), False, np.dtype(np.uint8))
            return _read_pixels(path, stream, header)


def read_npz(path: Path) -> Array:
    """Return the array called images, or the only one that can be, [n, height, width, 1 or 3].

    uint8, or float in [0, 1]. Raises InputError.
    """
    with (
        refused_as(path, "a whole .npz file"),
        warnings.catch_warnings(action="ignore"),  # headers of Python 2, and odd escapes
        zipfile.ZipFile(path) as archive,
    ):
        name = _choose_array(path, archive)
        with _opened(path, archive, name) as (stream, header):
            dtype = header[2]
            if dtype != np.uint8 and not (dtype.kind == "f" and dtype.itemsize <= 8):
                expected = "expected uint8 (0 to 255) or float (0 to 1)"
                raise InputError(f"{path}: {name} has dtype {dtype}; {expected}")
            images = _read_pixels(path, stream, header)
    if images.dtype != np.uint8:
        with np.errstate(invalid="ignore"):
            low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 1):  # also true of NaN
            found = f"{name} holds floats from {low:g} to {high:g}"
            raise InputError(f"{path}: {found}; expected finite ones in [0, 1], or uint8")
    return images


def _idx_shape(path: Path, stream: Stream) -> tuple[int, ...]:
    """Read an IDX header: two zero bytes, type, number of dimensions, big-endian dimensions."""
    magic = stream.read(4)
    expected = "expected 00000803 (images [n, height, width]) or 00000804 (with channels)"
    if magic == b"\x00\x00\x08\x01":
        raise InputError(f"{path} holds labels (00000801), not images; {expected}")
    if magic[:3] != _IDX_UINT8 or magic[3:] not in (b"\x03", b"\x04"):
        raise InputError(f"{path} starts with {magic.hex() or 'nothing'}; {expected}")
    header = stream.read(4 * magic[3])
    if len(header) != 4 * magic[3]:
        raise InputError(f"{path} ends within its header; expected {magic[3]} dimensions")
    return struct.unpack(f">{magic[3]}I", header)


def _choose_array(path: Path, archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    if "images.npy" in names:
        return "images.npy"
    shapes = {}
    for name in names:
        with _opened(path, archive, name) as (_, header):
            shapes[name] = header[0]
    candidates = [name for name in names if len(shapes[name]) in (3, 4)]
    if len(candidates) != 1:
        listed = ", ".join(f"{n.removesuffix('.npy')} {shapes[n]}" for n in names[:8]) or "none"
        expected = "an array called images, or exactly one of 3 or 4 dimensions"
        raise InputError(f"{path}: expected {expected}, found {listed}")
    return candidates[0]


@contextlib.contextmanager
def _opened(path: Path, archive: zipfile.ZipFile, name: str) -> Iterator[tuple[Stream, Header]]:
    """Open a member; yields the stream behind its header, and the header."""
    # NumPy writes no other. An LZMA header may ask for gigabytes before a byte is unpacked.
    if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{path}: {name} is packed by another method; expected stored or deflated")
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):  # 2.0 and 3.0 are for structured arrays; their headers may be 4 GiB
            raise InputError(f"{path}: {name} has npy format {version}; expected (1, 0)")
        yield stream, np.lib.format.read_array_header_1_0(stream)


def _read_pixels(path: Path, stream: Stream, header: Header) -> Array:
    """Return the rest of a stream as [n, height, width, channels], or raise InputError."""
    shape, is_fortran, dtype = header
    expected = "expected [n, height, width] or [n, height, width, 1 or 3]"
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise InputError(f"{path} holds an array of shape {shape}; {expected}, none of them 0")
    n, height, width, channels = shape if len(shape) == 4 else (*shape, 1)
    if channels not in (1, 3):
        nchw = ": the channels come first (NCHW); save images.transpose(0, 2, 3, 1) instead"
        hint = nchw if height in (1, 3) else ""
        raise InputError(f"{path} holds an array of shape {shape}; {expected}{hint}")
    declared = math.prod(shape) * dtype.itemsize
    check_memory(path, f"declares an array of shape {shape}", declared)
    data = bytearray()
    while len(data) <= declared and (chunk := stream.read(_CHUNK)):
        data += chunk
    if len(data) != declared:
        found = f"only {len(data):,}" if len(data) < declared else "more"
        raise InputError(f"{path}: the header declares {declared:,} bytes of pixels, found {found}")
    images = np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
    return images.reshape(n, height, width, channels)


def read_batch(path: Path) -> Array:
    """Return the images of one batch, uint8 [n, 32, 32, 3]; InputError, which names the file.

    Source: cs.toronto.edu/~kriz/cifar.html. Nothing in the file is called or imported.
    """
    expected = f"a python batch of CIFAR-10, a pickled dict with data of shape (n, {ROW})"
    with refused_as(path, expected):
        with open(path, "rb") as file:
            content = file.read(LARGEST_BATCH + 1)
        if len(content) > LARGEST_BATCH:
            raise ValueError(f"more than {LARGEST_BATCH:,} bytes")
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
