"""Errors about untrusted input: one line that any terminal takes, whatever the input says."""

import os
import unicodedata
from pathlib import Path

MAXIMUM_MESSAGE = 1000  # most characters of an error: they quote a file, which may be a book
_CHANGES_OF_DIRECTION = ("LRE", "LRO", "RLE", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


class InputError(ValueError):
    """Unusable input, in one line: what was received, what was expected and how to fix it."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def require_file(path: Path, expected: str, error: type[ValueError]) -> None:
    """Raise `error` unless a file is there: a pipe, say, would be waited for without end."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise error(f"{path}: expected {expected}, found {found}")


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path as one line that any terminal or log takes, whatever bytes the name holds."""
    text = os.fspath(path)
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if _is_unsafe(c) else c for c in text)


def one_line(message: str) -> str:
    """Return a message, which may quote a file, as a printable line of MAXIMUM_MESSAGE at most."""
    shown = printable(" ".join(message[: 4 * MAXIMUM_MESSAGE].split()))
    return shown if len(shown) <= MAXIMUM_MESSAGE else shown[: MAXIMUM_MESSAGE - 2] + " …"


def _is_unsafe(character: str) -> bool:
    # Control characters, halves of surrogate pairs, separators of lines, changes of direction.
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or (
        unicodedata.bidirectional(character) in _CHANGES_OF_DIRECTION
    )
