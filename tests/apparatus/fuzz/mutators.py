"""Damage and lies in bytes; every function takes the random numbers first."""

import re
from collections.abc import Callable, Sequence
from random import Random

_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_LONG_EDGES = (*_EDGES, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
_NUMBERS = (b"0", b"-1", b"1", b"7", b"65536", b"4294967296", b"9223372036854775807", b"1e999")
_TOKENS = (b"\0" * 64, b"\xff" * 64, b"../../etc/passwd", b"\x1b[31m\n\r", b"\xed\xa0\x80", b"%s%n")


def truncate(draw: Random, content: bytes) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def flip_bits(draw: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8, 64)) if content else 0):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def flip_in_the_head(draw: Random, content: bytes) -> bytes:
    """Headers are what readers believe, and most of a file is not a header."""
    return flip_bits(draw, content[:512]) + content[512:]


def flip_in_the_tail(draw: Random, content: bytes) -> bytes:
    return content[:-256] + flip_bits(draw, content[-256:])


def lie_in_a_field(draw: Random, content: bytes) -> bytes:
    """Write a number of an odd size over two to eight bytes, mostly near the start."""
    size = draw.choice((1, 2, 4, 4, 8))
    if len(content) < size:
        return content
    reach = draw.choice((64, 512, len(content)))
    place = draw.randrange(max(1, min(reach, len(content)) - size + 1))
    number = draw.choice(_LONG_EDGES) % (1 << (8 * size))
    order = draw.choice(("little", "big"))
    return content[:place] + number.to_bytes(size, order) + content[place + size :]


def lie_in_a_text(draw: Random, content: bytes) -> bytes:
    """Replace one number that stands as text: shapes, offsets and sizes of many headers."""
    found = list(re.finditer(rb"-?[0-9]+", content[: 2**20]))
    if not found:
        return lie_in_a_field(draw, content)
    place = draw.choice(found)
    return content[: place.start()] + draw.choice(_NUMBERS) + content[place.end() :]


def delete(draw: Random, content: bytes) -> bytes:
    start, end = _slice(draw, content)
    return content[:start] + content[end:]


def repeat(draw: Random, content: bytes) -> bytes:
    start, end = _slice(draw, content)
    return content[:end] + content[start:end] * draw.choice((1, 1, 2, 50)) + content[end:]


def blank(draw: Random, content: bytes) -> bytes:
    start, end = _slice(draw, content)
    return content[:start] + draw.choice((b"\0", b"\xff")) * (end - start) + content[end:]


def insert(draw: Random, content: bytes) -> bytes:
    place = draw.randrange(len(content) + 1)
    return content[:place] + draw.choice((*_TOKENS, draw.randbytes(16))) + content[place:]


def append(draw: Random, content: bytes) -> bytes:
    return content + draw.choice((*_TOKENS, draw.randbytes(1000)))


def replace_all(draw: Random, content: bytes) -> bytes:
    return draw.choice((b"", b"\0", draw.randbytes(100), b"\0" * 4096, content[::-1]))


MUTATORS: Sequence[Callable[[Random, bytes], bytes]] = (
    *(truncate, flip_bits, flip_in_the_head, flip_in_the_head, flip_in_the_tail),
    *(lie_in_a_field, lie_in_a_field, lie_in_a_text, lie_in_a_text),
    *(delete, repeat, blank, insert, append, replace_all),
)


def splice(draw: Random, content: bytes, other: bytes) -> bytes:
    """Return the start of one file and the end of another."""
    return content[: draw.randrange(len(content) + 1)] + other[draw.randrange(len(other) + 1) :]


def mutated(draw: Random, samples: Sequence[bytes]) -> tuple[str, bytes]:
    """Return what was done and a sample after one to three mutations; now and then none."""
    content = draw.choice(samples)
    labels = []
    if draw.random() < 0.1:
        labels, content = ["splice"], splice(draw, content, draw.choice(samples))
    for _ in range(draw.choice((0, 1, 1, 1, 1, 1, 2, 2, 3))):
        mutator = draw.choice(MUTATORS)
        labels.append(mutator.__name__)
        content = mutator(draw, content)
    return " ".join(labels) or "intact", content


def _slice(draw: Random, content: bytes) -> tuple[int, int]:
    start = draw.randrange(len(content) + 1)
    length = draw.choice((1, 2, 8, 64, 1024, len(content)))
    return start, min(len(content), start + length)
