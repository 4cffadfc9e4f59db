"""Documents, TOML or JSON, from people and from files that may hold anything."""

import contextlib
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from jsonschema.protocols import Validator

from shared.files.errors import InputError

MAXIMUM_BYTES = 2**24
_MOST_OF_A_MISTAKE = 600  # characters
# The last two: a number as 0x1.0p+9999, JSON nested too deep.
_OF_DAMAGE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


def read_document(path: Path) -> Any:
    """Return what a .toml or .json file holds, as plain data.

    Raises InputError, which names the file, for one that cannot be read or is of another kind.
    """
    loads = {".toml": tomllib.loads, ".json": json.loads}.get(path.suffix)
    if loads is None:
        raise InputError(f"{path}: received a file named *{path.suffix}, expected .toml or .json")
    with refused_as(InputError, path, "a document in TOML or JSON"):
        return loads(_text(path, MAXIMUM_BYTES))


def read_json(path: Path, most_bytes: int) -> Any:
    """Return what a file of strict JSON holds; its errors are for `refused_as`."""
    return json.loads(_text(path, most_bytes), parse_constant=_refuse_constant)


def check_document(document: Any, validator: Validator) -> None:
    """Raise ValueError, which says the place, for the first thing that a schema refuses."""
    # The first only: an untrusted file may have a million of them.
    if mistake := next(validator.iter_errors(document), None):
        place, message = mistake.json_path.removeprefix("$").lstrip("."), mistake.message
        if len(message) > _MOST_OF_A_MISTAKE:  # it quotes the value, and ends with what is wrong
            half = _MOST_OF_A_MISTAKE // 2
            message = f"{message[:half]} … {message[-half:]}"
        raise ValueError(f"{place or 'the file'}: {message}")


@contextlib.contextmanager
def refused_as(
    kind: type[InputError], path: Path, expected: str, advice: str = "give another file"
) -> Iterator[None]:
    """Turn what a damaged or foreign file makes Python raise into an error that names the file."""
    try:
        yield
    except OSError as error:
        raise kind(f"{path} cannot be read: {error.strerror}; expected {expected}") from error
    except _OF_DAMAGE as error:
        found = f"another or damaged file ({type(error).__name__}: {error})"
        found = str(error) if type(error) is ValueError else found
        raise kind(f"{path}: expected {expected}, found {found}; {advice}") from error


def _text(path: Path, most_bytes: int) -> str:
    if path.exists() and not path.is_file():  # a pipe would be waited for without end
        raise ValueError("a folder" if path.is_dir() else "no file")
    if (size := path.stat().st_size) > most_bytes:
        raise ValueError(f"{size:,} bytes, expected at most {most_bytes:,}")
    return path.read_text("utf-8")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which JSON does not have")
