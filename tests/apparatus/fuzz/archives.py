"""Zip and gzip files that lie or unpack to far more than they are."""

import functools
import gzip
import io
import struct
import zipfile
from random import Random

BOMB = 200 * 2**20
"""What a bomb unpacks to, in bytes."""


@functools.cache
def packed_zeros(head: bytes = b"") -> bytes:
    """Return a gzip stream of a head and then BOMB zeros, a thousandth of that in size."""
    return gzip.compress(head + bytes(BOMB), 6, mtime=0)


@functools.cache
def zip_of_zeros(name: str, head: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip whose one member is a head and then BOMB zeros."""
    return zip_of({name: head + bytes(BOMB)}, method)


def zip_of(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip with these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def zip_that_lies(draw: Random, content: bytes) -> bytes:
    """Change a field of the headers of a zip: sizes, methods, flags, offsets, names."""
    changed = bytearray(content)
    central, end = content.rfind(b"PK\x01\x02"), content.rfind(b"PK\x05\x06")
    start = draw.choice([place for place in (0, central, end) if place >= 0])
    place = start + 4 + 2 * draw.randrange(21)
    number = draw.choice((0, 1, 8, 9, 12, 14, 93, 99, 0xFFFF, 0x7FFF, 0xFFFFFFFF, 0x80000000))
    size = draw.choice((2, 4))
    if place + size <= len(changed):
        changed[place : place + size] = (number % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(changed)


def lzma_that_asks_for_memory(name: str) -> bytes:
    """Return a zip whose member declares a dictionary of 4 GiB to LZMA."""
    content = bytearray(zip_of({name: b"\x93NUMPY" * 100}, zipfile.ZIP_LZMA))
    properties = content.find(b"\x09\x04\x05\x00")
    content[properties + 5 : properties + 9] = struct.pack("<I", 0xFFFFFFFF)
    return bytes(content)
