"""What the fuzzer knows of a reader, and what it says of an input."""

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

MEBIBYTE = 2**20

READ, REFUSED, FAULT = "read", "refused", "FAULT"


@dataclass(frozen=True)
class Case:
    """One input: what the reader is given, what was done to it, how an error may call it."""

    path: Path
    label: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Reader:
    """A reader and its inputs.

    `make(draw, folder)` writes one input below an empty folder; `read` reads it and checks what it
    got, raising AssertionError where that is wrong. A refusal is one of `errors`. `memory` is the
    bound on what a read may add to the process's memory, in bytes; `seconds` is when it counts as
    hanging, `processor_seconds` what it may take of a processor. `needs` are the modules that have
    to be installed; `prepare` is called once before the first input.
    """

    name: str
    make: Callable[[Random, Path], Case]
    read: Callable[[Path], None]
    errors: tuple[type[BaseException], ...] = (ValueError,)
    memory: int = 512 * MEBIBYTE
    seconds: float = 60.0
    processor_seconds: float = 20.0
    needs: tuple[str, ...] = ()
    prepare: Callable[[], None] = lambda: None

    @property
    def missing(self) -> list[str]:
        """Which modules are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


@dataclass(frozen=True)
class Outcome:
    """What became of an input; `lines` are of the error, `peak` bytes, `signature` of a fault."""

    index: int
    verdict: str
    label: str
    lines: tuple[str, ...] = ()
    peak: int = 0
    seconds: float = 0.0
    signature: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def draw_of(reader: str, seed: int, index: int) -> Random:
    """Return the random numbers of one input: the same on every machine."""
    return Random(f"{reader}/{seed}/{index}")
