"""The file of a document: written in one piece, and read although it may be anything."""

import functools
import json
from pathlib import Path
from typing import Any, NoReturn

import jsonschema

from shared.files.atomic import write_file_atomically
from shared.files.errors import InputError

SCHEMA_VERSION = 2
SCHEMA = Path(__file__).with_name("schema.json")
MAXIMUM_BYTES = 4 * 2**20
"""Largest file that is read; a run of a day has less than half of it."""
MAXIMUM_WINDOWS = 2_500
"""Most windows of all rows, five of each: the bootstrap draws two thousand times as many."""
MAXIMUM_PROBLEM = 300
"""Most characters of a problem, which quotes what the file holds."""


class DocumentError(InputError):
    """A file that is no document of `run.py --json`."""


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document in one piece: a reader sees the old file or the whole new one."""
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    write_file_atomically(path.absolute(), text.encode())


def load(path: Path) -> dict[str, Any]:
    """Return a document of `run.py --json`; DocumentError, which names the file, for all else."""
    try:
        if not path.is_file():  # a pipe would be waited for without end
            found = "a folder" if path.is_dir() else "no file"
            raise DocumentError(f"{path}: expected a file of run.py --json, found {found}")
        with open(path, "rb") as file:
            content = file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAXIMUM_BYTES:
        raise DocumentError(f"{path} is larger than {MAXIMUM_BYTES:,} bytes, the most expected")
    try:
        document = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    # ValueError: no UTF-8, no JSON, too many digits. RecursionError: nested too deep.
    except (ValueError, RecursionError) as error:
        message = f"{path} is no JSON: {error}; expected a file of run.py --json"
        raise DocumentError(message) from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    advice = "measure it anew with run.py --json"
    if version != SCHEMA_VERSION:
        raise DocumentError(
            f"{path} has the schema version {version!r:.80}, expected {SCHEMA_VERSION}: {advice}"
        )
    if problem := _problem(document):
        raise DocumentError(f"{path} is damaged: {problem}; {advice}")
    return dict(document)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")


@functools.cache
def validator() -> jsonschema.Draft202012Validator:
    """Return the validator of documents."""
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))


def _problem(document: dict[str, Any]) -> str | None:
    """Return the first thing that is wrong with a document, by the schema or between its parts."""
    for error in validator().iter_errors(document):
        message, half = error.message, MAXIMUM_PROBLEM // 2
        if len(message) > MAXIMUM_PROBLEM:  # it quotes the value, and ends with what is wrong
            message = f"{message[:half]} … {message[-half:]}"
        return f"{error.json_path}: {message}"
    ids = [configuration["id"] for configuration in document["configurations"]]
    if len(set(ids)) != len(ids):
        return "two configurations have one id"
    for summary in document["summary"]:
        name, is_ok = summary["configuration"], summary["status"] == "ok"
        rows = [row for row in document["rows"] if row["configuration"] == name]
        if name not in ids:
            return f"the summary has {name!r}, which is none of the configurations"
        if is_ok and not rows:
            return f"{name} is ok and has no row"
        if is_ok and not all(row["windows"] for row in rows):
            return f"{name} is ok and has a row without windows"
    windows = sum(len(row["windows"]) for row in document["rows"])
    if windows > MAXIMUM_WINDOWS:
        return f"expected at most {MAXIMUM_WINDOWS:,} windows, found {windows:,}"
    return None
