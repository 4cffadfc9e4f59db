"""Folders of pictures: `shared.data.dataset.load_dataset` on a folder."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from shared.data.dataset import load_dataset
from shared.files.errors import InputError
from shared.spec import SYSTEMS
from tests.apparatus.fuzz.mutators import mutated
from tests.apparatus.fuzz.places import Files, case_of
from tests.apparatus.fuzz.reader import MEBIBYTE, Case, Reader

_SPECS = (SYSTEMS["conv28"], SYSTEMS["dcgan64"])
_NOISE = np.random.default_rng(3).integers(0, 256, (40, 52, 3), dtype=np.uint8)


def _samples() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    made: list[bytes] = []
    for kind, modes in {
        "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
        "JPEG": ("RGB", "L", "CMYK"),
        "TIFF": ("RGB", "L", "I;16", "CMYK", "LAB"),
        "GIF": ("P",),
        "BMP": ("RGB", "L", "P"),
        "WEBP": ("RGB", "RGBA"),
        "PPM": ("RGB", "L"),
    }.items():
        made += [_saved(kind, mode, exif) for mode in modes]
    for options in ({"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"tiled": True}):
        made.append(_saved("TIFF", "RGB", exif, **options))
    made.append(_saved("JPEG", "RGB", exif, progressive=True))
    return made


def _saved(kind: str, mode: str, exif: Image.Exif, **options: object) -> bytes:
    buffer = io.BytesIO()
    if mode == "I;16":
        picture = Image.fromarray(_NOISE[..., 0].astype(np.uint16) * 257)
    elif mode == "LAB":
        picture = Image.frombytes("LAB", (52, 40), _NOISE.tobytes())
    else:
        picture = Image.fromarray(_NOISE).convert(mode)
    more = {"exif": exif} if kind in ("PNG", "JPEG", "TIFF", "WEBP") else {}
    picture.save(buffer, kind, **more, **options)
    return buffer.getvalue()


def png(width: int, height: int, *chunks: bytes, colour: int = 2, bits: int = 8) -> bytes:
    """Return a PNG of any declared size and any chunks, each a type and its content."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (head, *chunks, b"IEND")
    )


def lying_size(draw: Random) -> bytes:
    sizes = (0, 1, 28, 8000, 8001, 16384, 65535, 2**31 - 1, 2**32 - 1)
    width, height = draw.choice(sizes), draw.choice(sizes)
    rows = b"IDAT" + zlib.compress(bytes(1000))
    return png(width, height, rows, colour=draw.choice((0, 2, 3, 4, 6)))


def bomb_of_pixels(draw: Random) -> bytes:
    """A picture of 64 million pixels, the most that are decoded, in a few kilobytes."""
    size, colour, samples = draw.choice(((8000, 0, 1), (8000, 2, 3), (8000, 6, 4), (8000, 4, 2)))
    rows = zlib.compress(bytes(size * (1 + samples * size)), 1)
    return png(size, size, b"IDAT" + rows, colour=colour)


def bomb_of_text(draw: Random) -> bytes:
    text = zlib.compress(bytes(100 * 2**20))
    chunk = draw.choice((b"zTXta\0\0", b"iTXta\0\1\0\0\0", b"iCCPa\0\0"))
    count = draw.choice((1, 20))
    return png(28, 28, *[chunk + text] * count, b"IDAT" + zlib.compress(bytes(28 * 85)))


def lying_bmp(draw: Random) -> bytes:
    edges = (0, 1, -1, 8000, 2**15, 2**31 - 1, -(2**31))
    fields = (draw.choice((40, 12, 124, 2**31 - 1)), draw.choice(edges), draw.choice(edges))
    bits = draw.choice((1, 4, 8, 16, 24, 32, 255))
    head = struct.pack("<IiiHHI", *fields, 1, bits, draw.choice((0, 1, 2, 3, 6)))
    return b"BM" + struct.pack("<IHHI", 10**6, 0, 0, 54) + head + bytes(100)


def lying_gif(draw: Random) -> bytes:
    size = draw.choice((0, 1, 8000, 65535))
    return (
        b"GIF89a"
        + struct.pack("<HH", size, size)
        + b"\x80\0\0"
        + bytes(6)
        + b","
        + (
            struct.pack("<HHHH", draw.choice((0, 65535)), 0, size, size)
            + b"\0\x02"
            + bytes(40)
            + b";"
        )
    )


def lying_tiff(draw: Random) -> bytes:
    edges = (0, 1, 28, 8000, 65535, 2**31, 2**32 - 1)
    tags = (256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 338, 320, 700, 33723, 0x8769)
    chosen = sorted(draw.sample(tags, 12))
    entries = [
        struct.pack("<HHII", tag, draw.choice((1, 2, 3, 4, 5, 7, 12)), *draw.choices(edges, k=2))
        for tag in chosen
    ]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(64)


def with_scans(count: int) -> bytes:
    """Return a small progressive JPEG whose last scan is repeated."""
    content = _saved("JPEG", "L", Image.Exif(), progressive=True)
    start = content.rfind(b"\xff\xda")
    return content[:start] + content[start:-2] * count + content[-2:]


def many_scans(draw: Random) -> bytes:
    """A progressive JPEG whose scan is repeated: much work for every byte."""
    return with_scans(draw.choice((10, 1000)))


def many_scans_of_a_large_picture(draw: Random) -> bytes:
    """Scans of nothing but ends of bands over 64 million pixels, with tables that fit them."""
    buffer = io.BytesIO()
    Image.new("L", (7999, 7999)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    start = content.rfind(b"\xff\xda")
    return content[:start] + content[start:-2] * draw.choice((2, 300)) + content[-2:]


def postscript(draw: Random) -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch canary) (w) file\n"


_ATTACKS: tuple[Callable[[Random], bytes], ...] = (
    *(lying_size, lying_size, lying_bmp, lying_gif, lying_tiff, lying_tiff, many_scans),
    postscript,
)
_HEAVY = (bomb_of_pixels, bomb_of_text, many_scans_of_a_large_picture)
_FILES = Files((".png", ".jpg", ".TIFF", ".gif", ".webp", ".bmp", ".ppm"), _samples)


def make(draw: Random, folder: Path) -> Case:
    place = folder / draw.choice(("pictures", "pic tures 🎨", "nested"))
    (place / "inner").mkdir(parents=True)
    if draw.random() < 0.2:
        (place / "intact.png").write_bytes(_FILES.samples[0])
    if draw.random() < 0.05:
        (place / "inner" / "circle").symlink_to(place)
    chance = draw.random()
    if chance < 0.4:
        attack = draw.choice(_HEAVY if chance < 0.015 else _ATTACKS)
        label, content = attack.__name__, attack(draw)
    else:
        label, content = mutated(draw, _FILES.samples)
    inner = _FILES.put(draw, place / draw.choice(("", "inner")), label, content)
    return case_of(place, inner.label)


def read(path: Path) -> None:
    spec = _SPECS[len(path.name) % 2]
    dataset = load_dataset(path, spec)
    assert dataset.images.shape[1:] == spec.image_shape
    assert dataset.images.dtype == np.uint8
    assert len(dataset.images) >= 1
    assert all(line.isprintable() for line in dataset.skipped)


READER = Reader(
    "images",
    make,
    read,
    (InputError,),
    memory=1536 * MEBIBYTE,
    prepare=lambda: read_intact(),
)


def read_intact() -> None:
    """Decode each intact sample once, so that no import counts as memory of a read."""
    for content in _FILES.samples:
        Image.open(io.BytesIO(content)).load()
