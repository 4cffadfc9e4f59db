"""IDX files, raw and gzip: `shared.data.dataset.load_dataset` on a file."""

import gzip
import struct
from pathlib import Path
from random import Random

import numpy as np

from shared.data.dataset import load_dataset
from shared.files.errors import InputError
from shared.spec import SYSTEMS
from tests.apparatus.fuzz.archives import BOMB, packed_zeros
from tests.apparatus.fuzz.places import Files
from tests.apparatus.fuzz.reader import Reader

_SPEC = SYSTEMS["conv28"]
_EDGES = (0, 1, 2, 3, 28, 255, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def idx(shape: tuple[int, ...], data: bytes, kind: int = 8) -> bytes:
    """Return an IDX file of any declared shape."""
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


def _samples() -> list[bytes]:
    noise = np.random.default_rng(4).integers(0, 256, 3 * 30 * 26 * 3, dtype=np.uint8).tobytes()
    raw = [idx((3, 30, 26), noise[: 3 * 30 * 26]), idx((3, 30, 26, 3), noise)]
    return [*raw, *(gzip.compress(content, mtime=0) for content in raw)]


def lying_shape(draw: Random) -> bytes:
    shape = tuple(draw.choice(_EDGES) for _ in range(draw.choice((0, 1, 2, 3, 3, 3, 4, 4, 255))))
    kind = draw.choice((8, 8, 8, 8, 9, 11, 12, 13, 14, 255))
    content = idx(shape, draw.randbytes(draw.choice((0, 1, 784, 2352))), kind)
    return gzip.compress(content, mtime=0) if draw.random() < 0.4 else content


def bomb(draw: Random) -> bytes:
    """Zeros without end behind a header that asks for one image, for most, or for all of them."""
    side = int(BOMB**0.5) // 2
    shape = draw.choice(((1, 28, 28), (1, side, side), (1, 2 * side, 2 * side), (4 * 10**9, 1, 1)))
    return packed_zeros(idx(shape, b""))


def many_members(draw: Random) -> bytes:
    """A gzip stream of very many empty members."""
    return gzip.compress(b"", mtime=0) * draw.choice((10, 50_000))


def long_field(draw: Random) -> bytes:
    """A gzip header with a name or an extra field that does not end."""
    flag = draw.choice((4, 8, 16, 2, 0xFF))
    return b"\x1f\x8b\x08" + bytes([flag]) + bytes(6) + b"\xff\xff" + b"n" * 100_000


_FILES = Files(
    ("-idx3-ubyte", "-idx3-ubyte.gz", ".idx4"),
    _samples,
    (lying_shape, lying_shape, lying_shape, many_members, long_field, bomb),
)


def read(path: Path) -> None:
    images = load_dataset(path, _SPEC).images
    assert images.shape[1:] == _SPEC.image_shape
    assert images.dtype == np.uint8
    assert len(images) >= 1


READER = Reader("idx", _FILES.make, read, (InputError,), prepare=_FILES.prepared(read))
