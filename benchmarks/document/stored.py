"""Reading a document of `run.py --json` that may be anything: what a comparison needs of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.document.rows import SCHEMA_VERSION
from shared.files.errors import one_line
from shared.spec.streams import MAXIMUM_SEED

MAXIMUM_BYTES = 16 * 2**20
"""Largest file that is read; a run of a day has a tenth of it."""
MAXIMUM_ROWS, MAXIMUM_WINDOWS = 500, 10_000
"""Most rows, and most windows of all of them: the bootstrap draws two thousand times as many."""
MAXIMUM_COUNT = 2**31
NEEDED = ("host", "workload", "configurations", "rows", "summary", "seed")
HOST = ("cpu", "cores", "memory_bytes")
WORKLOAD = ("system", "loss", "width", "dtype")


class DocumentError(ValueError):
    """A file that is no document of `run.py --json`; the message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def load(path: Path) -> dict[str, Any]:
    """Return a document of `run.py --json`; DocumentError, which names the file, for all else."""
    document = _parsed(path, _text(path))
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION or any(name not in document for name in NEEDED):
        raise DocumentError(
            f"{path} has the schema version {version!r}, expected {SCHEMA_VERSION}: measure it "
            "anew with run.py --json"
        )
    problem = next(_problems(document), None)
    if problem:
        raise DocumentError(f"{path} is damaged: {problem}; measure it anew with run.py --json")
    return dict(document)


def _text(path: Path) -> bytes:
    try:
        if not path.is_file():  # a pipe would be waited for without end
            found = "a folder" if path.is_dir() else "no file"
            raise DocumentError(f"{path}: expected a file of run.py --json, found {found}")
        with open(path, "rb") as file:
            text = file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror}") from error
    if len(text) > MAXIMUM_BYTES:
        raise DocumentError(f"{path} is larger than {MAXIMUM_BYTES:,} bytes, the most expected")
    return text


def _parsed(path: Path, text: bytes) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"it holds {constant}")

    try:
        return json.loads(text.decode("utf-8"), parse_constant=refuse)
    # ValueError: no UTF-8, no JSON, too many digits. RecursionError: nested too deep.
    except (ValueError, RecursionError) as error:
        raise DocumentError(
            f"{path} is no JSON: {error}; expected a file of run.py --json"
        ) from error


def _problems(document: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the parts that a comparison uses; later ones take the first."""
    seed = document["seed"]
    if type(seed) is not int or not 0 <= seed <= MAXIMUM_SEED:
        yield f"expected a whole number from 0 to {MAXIMUM_SEED} as seed, found {seed!r}"
    for part, fields in (("host", HOST), ("workload", WORKLOAD)):
        held = document[part]
        if not isinstance(held, dict) or not all(_is_plain(held.get(f, [])) for f in fields):
            yield f"expected {', '.join(fields)} in {part}, found {held!r}"
    for part in ("configurations", "rows", "summary"):
        held = document[part]
        if not isinstance(held, list) or not all(isinstance(entry, dict) for entry in held):
            yield f"expected a list of objects as {part}"
        if len(held) > MAXIMUM_ROWS:
            yield f"expected at most {MAXIMUM_ROWS:,} {part}, found {len(held):,}"
    yield from _problems_of_configurations(document)
    ok = {s["configuration"] for s in document["summary"] if s["status"] == "ok"}
    for number, row in enumerate(document["rows"]):
        name = row.get("configuration")
        is_used = _is_text(name) and name in ok
        yield from (f"row {number}: {problem}" for problem in _problems_of_row(row, is_used))
    windows = sum(len(row["windows"]) for row in document["rows"])
    if windows > MAXIMUM_WINDOWS:
        yield f"expected at most {MAXIMUM_WINDOWS:,} windows, found {windows:,}"


def _problems_of_configurations(document: dict[str, Any]) -> Iterator[str]:
    for entry in document["configurations"]:
        if not _is_text(entry.get("id")) or not _is_count(entry.get("batch_size")):
            yield f"expected id and batch_size of a configuration, found {entry!r}"
        if not _is_count(entry.get("devices", 1)):  # documents of before have no such field
            yield f"expected a number of devices, found {entry['devices']!r}"
    ids = [entry["id"] for entry in document["configurations"]]
    if len(set(ids)) != len(ids):
        yield "two configurations have one id"
    for entry in document["summary"]:
        if entry.get("configuration") not in ids or not _is_text(entry.get("status")):
            yield f"expected configuration and status in a summary, found {entry!r}"
    measured = [row.get("configuration") for row in document["rows"]]
    for entry in document["summary"]:
        if entry["status"] == "ok" and entry["configuration"] not in measured:
            yield f"{entry['configuration']} is ok and has no row"


def _problems_of_row(row: dict[str, Any], is_used: bool) -> Iterator[str]:
    name, windows, settings = (row.get(key) for key in ("configuration", "windows", "settings"))
    if not _is_text(name):
        yield f"expected the id of a configuration, found {name!r}"
    has_device = isinstance(settings, dict) and _is_text(settings.get("device"))
    if "settings" not in row or not (settings is None or has_device):
        yield f"expected a device in the settings, found {settings!r}"
    if not isinstance(windows, list) or (is_used and not windows):
        yield f"expected a list of windows, found {windows!r}"
    for window in windows or ():
        if not isinstance(window, dict) or not _is_count(window.get("steps")):
            yield f"expected steps and ms of a window, found {window!r}"
        ms = window.get("ms")
        if type(ms) not in (int, float) or not 1e-9 < ms < 1e15:
            yield f"expected positive milliseconds of a window, found {ms!r}"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_plain(value: object) -> bool:
    """Whether a value can be compared and shown: a text, a number or nothing."""
    return value is None or _is_text(value) or (type(value) in (int, float))


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAXIMUM_COUNT
