"""Errors about untrusted input: one line that any terminal takes, whatever the input says."""

import os
import unicodedata

MAXIMUM_MESSAGE = 1000
"""Most characters of an error: they quote a file, which may be a book."""
_CHANGES_OF_DIRECTION = ("LRE", "LRO", "RLE", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


class InputError(ValueError):
    """A file, an option or an answer from outside that cannot be used; every room's error is one.

    The message says what was received, what was expected and how to fix it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path as one line that any terminal or log takes, whatever bytes the name holds."""
    text = os.fspath(path)
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if _is_unsafe(c) else c for c in text)


def one_line(message: str) -> str:
    """Return a message as one printable line of at most MAXIMUM_MESSAGE characters.

    Errors quote what an untrusted file holds, which may be line breaks, the escape codes of a
    terminal, or a megabyte.
    """
    shown = printable(" ".join(message[: 4 * MAXIMUM_MESSAGE].split()))
    return shown if len(shown) <= MAXIMUM_MESSAGE else shown[: MAXIMUM_MESSAGE - 2] + " …"


def _is_unsafe(character: str) -> bool:
    # Control characters, halves of surrogate pairs, separators of lines, changes of direction.
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or (
        unicodedata.bidirectional(character) in _CHANGES_OF_DIRECTION
    )
