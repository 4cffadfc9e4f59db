"""The file of a document: written in one piece, and read although it may be anything."""

import json
from pathlib import Path
from typing import Any

import jsonschema

from shared.files.atomic import write_file_atomically
from shared.files.documents import check_document, read_document
from shared.files.errors import refused_as

SCHEMA_VERSION = 2
SCHEMA = Path(__file__).with_name("schema.json")
VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))
MAXIMUM_BYTES = 4 * 2**20
"""Largest file that is read; a run of a day has less than half of it."""
MAXIMUM_WINDOWS = 2_500
"""Most windows of all rows, five of each: the bootstrap draws two thousand times as many."""


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document in one piece: a reader sees the old file or the whole new one."""
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    write_file_atomically(path.absolute(), text.encode())


def load(path: Path) -> dict[str, Any]:
    """Return a document of `run.py --json`; InputError, which names the file, for all else."""
    expected = f"a file of run.py --json, schema version {SCHEMA_VERSION}"
    with refused_as(path, expected, "measure it anew with run.py --json"):
        document: dict[str, Any] = read_document(path, MAXIMUM_BYTES)
        version = document.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(f"that it has the schema version {version!r:.80}")
        check_document(document, VALIDATOR)
        _check_parts(document)
    return document


def _check_parts(document: dict[str, Any]) -> None:
    """Raise ValueError for parts of a document that contradict one another."""
    ids = [configuration["id"] for configuration in document["configurations"]]
    if len(set(ids)) != len(ids):
        raise ValueError("two configurations of one id")
    for summary in document["summary"]:
        name, is_ok = summary["configuration"], summary["status"] == "ok"
        rows = [row for row in document["rows"] if row["configuration"] == name]
        if name not in ids:
            raise ValueError(f"a summary of {name!r}, which is none of the configurations")
        if is_ok and not (rows and all(row["windows"] for row in rows)):
            raise ValueError(f"that {name} is ok and has no row, or one without windows")
    windows = sum(len(row["windows"]) for row in document["rows"])
    if windows > MAXIMUM_WINDOWS:
        raise ValueError(f"{windows:,} windows, expected at most {MAXIMUM_WINDOWS:,}")
