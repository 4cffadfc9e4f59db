"""Where an input lies: odd names, links, pipes and folders in the place of a file."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.apparatus.fuzz.mutators import mutated
from tests.apparatus.fuzz.reader import Case

_STEMS = (
    *(b"a", b"a", b"a", b"with space", "naïve 🎨".encode(), b"caf\xe9", b"new\nline"),
    *(b"\x1b[31mred", b"-rf", b"x" * 200, "\u202egnp".encode(), b"a'b\"c;$(touch x)"),
)


def path_in(draw: Random, folder: Path, suffix: str, stems: tuple[bytes, ...] = _STEMS) -> Path:
    """Return a path with an odd name, which the file system takes."""
    stem = draw.choice(stems)
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + stem + os.fsencode(suffix)))


def case_of(path: Path, label: str) -> Case:
    """Return a case whose errors have to name `path`, with its odd characters escaped.

    A line break may have become a space, for the sake of the one line.
    """
    escaped = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in path.name
    )
    joined = " ".join(escaped.replace("\\n", " ").split())
    return Case(path, label, (escaped, joined))


def a_folder(path: Path) -> str:
    path.mkdir()
    return "a folder"


def a_pipe(path: Path) -> str:
    os.mkfifo(path)
    return "a pipe"


def a_circle(path: Path) -> str:
    path.symlink_to(path)
    return "a link to itself"


def a_dangling_link(path: Path) -> str:
    path.symlink_to(path.with_name("nowhere"))
    return "a link to nowhere"


def a_device(path: Path) -> str:
    path.symlink_to("/dev/zero")
    return "a link to /dev/zero"


def nothing(path: Path) -> str:
    return "nothing"


_NO_FILES: tuple[Callable[[Path], str], ...] = (
    *(a_folder, a_pipe, a_circle, a_dangling_link, a_device, nothing),
)


class Files:
    """The inputs of a reader of single files: damaged samples, and contents made for it.

    `samples()` returns intact contents, `attacks` are functions that return a content and whose
    names say what it is; `share` of the inputs are attacks. `stems` are names without a suffix.
    """

    def __init__(
        self,
        suffixes: tuple[str, ...],
        samples: Callable[[], list[bytes]],
        attacks: tuple[Callable[[Random], bytes], ...] = (),
        share: float = 0.3,
        stems: tuple[bytes, ...] = _STEMS,
    ) -> None:
        self._suffixes, self._make_samples = suffixes, samples
        self._attacks, self._share, self._stems = attacks, share, stems
        self._samples: list[bytes] = []

    @property
    def samples(self) -> list[bytes]:
        """The intact contents, made when they are first asked for."""
        if not self._samples:
            self._samples = self._make_samples()
        return self._samples

    def make(self, draw: Random, folder: Path) -> Case:
        """Write one input."""
        if self._attacks and draw.random() < self._share:
            attack = draw.choice(self._attacks)
            return self.put(draw, folder, attack.__name__, attack(draw))
        return self.put(draw, folder, *mutated(draw, self.samples))

    def put(self, draw: Random, folder: Path, label: str, content: bytes) -> Case:
        """Write a content, mostly as a file; now and then what lies there is no file."""
        path = path_in(draw, folder, draw.choice(self._suffixes), self._stems)
        odd = draw.random()
        if odd < 0.94:
            path.write_bytes(content)
        elif odd < 0.96:
            target = folder / "target"
            target.write_bytes(content)
            path.symlink_to(target)
            label = f"link to: {label}"
        else:
            label = draw.choice(_NO_FILES)(path)
        return case_of(path, label)

    def prepared(self, read: Callable[[Path], None]) -> Callable[[], None]:
        """Return what reads every intact sample, which has to go well."""

        def read_all() -> None:
            with tempfile.TemporaryDirectory() as folder:
                for number, content in enumerate(self.samples):
                    path = Path(folder, f"{number}{self._suffixes[0]}")
                    path.write_bytes(content)
                    read(path)

        return read_all
