"""Errors about untrusted input: one line that any terminal takes, whatever the input says."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

MAXIMUM_MESSAGE = 1000  # most characters of an error: they quote a file, which may be a book


class InputError(ValueError):
    """Unusable input, in one line: what was received, what was expected and how to fix it."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


@contextlib.contextmanager
def refused_as(path: Path, expected: str, advice: str = "give another file") -> Iterator[None]:
    """Turn what a damaged or foreign file makes a reader raise into an InputError with its name."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        reason = error.strerror or error  # a damaged .gz has no number
        raise InputError(f"{path} cannot be read: {reason}; expected {expected}") from error
    except Exception as error:  # what Python and libraries raise depends on the damage
        found = f"another or damaged file ({type(error).__name__}: {error})"
        found = str(error) if type(error) is ValueError else found
        raise InputError(f"{path}: expected {expected}, found {found}; {advice}") from error


def require_file(path: Path, expected: str) -> None:
    """Raise InputError unless a file is there: a pipe, say, would be waited for without end."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no file" if path.exists() else "nothing"
        raise InputError(f"{path}: expected {expected}, found {found}")


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path as one line that any terminal or log takes, whatever bytes the name holds."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fspath(path)
    )


def one_line(message: str) -> str:
    """Return a message, which may quote a file, as a printable line of MAXIMUM_MESSAGE at most."""
    shown = printable(" ".join(message[: 4 * MAXIMUM_MESSAGE].split()))
    return shown if len(shown) <= MAXIMUM_MESSAGE else shown[: MAXIMUM_MESSAGE - 2] + " …"
