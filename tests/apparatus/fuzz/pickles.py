"""Pickles that run code when they are unpickled, and pickles that only mean harm to memory."""

import itertools
import os
import pickle
import pickletools
import shutil
import struct
import subprocess
from random import Random
from typing import Any

from tests.apparatus.fuzz.watch import CANARY


class Payload:
    """Unpickling it calls `function(*arguments)`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def _payloads() -> list[Payload]:
    canary = os.environ.get(CANARY, "canary")
    touch = f"open({canary!r}, 'w').close()"
    return [
        Payload(os.system, f"touch {canary!r}"),
        Payload(exec, touch),
        Payload(eval, touch),
        Payload(subprocess.call, ["touch", canary]),
        Payload(open, canary, "w"),
        Payload(shutil.rmtree, canary, True),
        Payload(os.mkdir, canary),
    ]


def running_code(draw: Random) -> bytes:
    """Return a pickle that leaves a trace if anything runs it."""
    payload = draw.choice(_payloads())
    value: Any = draw.choice((payload, {"data": payload}, [payload], {"generator": {"a": payload}}))
    return pickle.dumps(value, protocol=draw.choice((2, 3, 4, 5)))


def running_code_by_a_dotted_name(draw: Random) -> bytes:
    """Return a pickle that gets at a function through an attribute of an allowed module."""
    canary = os.environ.get(CANARY, "canary").encode()
    name = draw.choice(
        (
            *(b"numpy\nos.system", b"numpy.core.multiarray\nsys.modules", b"os\nsystem"),
            *(b"builtins\nexec", b"posix\nsystem", b"numpy\nload", b"numpy.testing\nruncmd"),
            *(b"torch\nos.system", b"torch.storage\n_load_from_bytes", b"torch\nload"),
        )
    )
    command = b"touch " + canary
    return b"\x80\x02c" + name + b"\nX" + struct.pack("<I", len(command)) + command + b"\x85R."


def filling_memory(draw: Random) -> bytes:
    """Return a pickle of a few bytes that asks for gigabytes."""
    return draw.choice(
        (
            b"\x80\x02N" + b"r" + struct.pack("<I", 2**31 - 1) + b".",  # LONG_BINPUT
            b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",  # BINBYTES8
            b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",  # BINUNICODE8
            b"\x80\x05\x96" + struct.pack("<Q", 2**38) + b"x.",  # BYTEARRAY8
            b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"x.",
            b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",  # LONG4
            b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",  # FRAME
        )
    )


def deeply_nested(draw: Random) -> bytes:
    """Return a pickle of very many levels, as a key of a dict too."""
    depth = draw.choice((1000, 100_000))
    key = b"\x80\x02})" + b"\x85" * depth + b"Ns."
    return draw.choice((key, b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".", key[:-2]))


def quadratic(draw: Random) -> bytes:
    """Return a pickle of very many marks, or of a list that is added to itself."""
    count = draw.choice((1000, 200_000))
    return draw.choice(
        (
            b"\x80\x02" + b"(" * count + b"t" * count + b".",
            b"\x80\x02" + b"N" * count + b"(t" * count + b".",
            b"\x80\x02]q\x00" + b"h\x00a" * count + b".",
            b"\x80\x02]q\x00" + b"(h\x00e" * count + b".",
        )
    )


def without_instruction(draw: Random, content: bytes) -> bytes:
    """Leave out, repeat or swap whole instructions of a pickle, which stays well-formed bytes."""
    places = [place for _, _, place in pickletools.genops(content)] + [len(content)]
    parts = [content[a:b] for a, b in itertools.pairwise(places)]
    for _ in range(draw.choice((1, 1, 2, 4))):
        i, j = draw.randrange(len(parts)), draw.randrange(len(parts))
        action = draw.choice(("drop", "repeat", "swap", "move"))
        if action == "drop":
            parts[i] = b""
        elif action == "repeat":
            parts[i] = parts[i] * draw.choice((2, 2, 100))
        elif action == "swap":
            parts[i], parts[j] = parts[j], parts[i]
        else:
            parts[j], parts[i] = parts[j] + parts[i], b""
    return b"".join(parts)
