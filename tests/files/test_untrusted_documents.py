"""Documents of the benchmark: faults that the fuzzer found or was written to find.

Each with its smallest input, which is refused by one printable line that names the file, at once
and without the memory that it asks for.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare
from benchmarks.document.stored import MAXIMUM_WINDOWS, load
from tests.benchmarks.documents import make_document
from tests.files.refusal import DEEP, DIGITS, damaged, refused


def document() -> dict[str, Any]:
    arguments = ["--framework", "pytorch", "--width", "8", "--rounds", "2"]
    return make_document(arguments, lambda configuration, number: [100.0, 101.0])


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("rows", 0, "windows"), None, "rows[0].windows: None is not of type 'array'"),
        (("rows", 0, "windows"), [], "rows[0].windows: [] is too short"),
        (("rows", 0, "windows", 0), 3, "windows[0]: 3 is not of type 'object'"),
        (("rows", 0, "windows", 0, "ms"), 0, "windows[0].ms: 0 is less than"),
        (("rows", 0, "windows", 0, "ms"), float("nan"), "NaN, which JSON does not have"),
        (("rows", 0, "windows", 0, "steps"), "x", "windows[0].steps: 'x' is not"),
        (("rows", 0, "settings"), {}, "rows[0].settings: 'platform' is a required"),
        (("rows",), [], "is ok and has no row"),
        (("rows",), [{"windows": []}] * 501, "is too long"),
        (("rows",), 3, "rows: 3 is not of type 'array'"),
        (("summary", 0, "configuration"), "other", "summary[0].configuration: 'other' does"),
        (("summary", 0, "status"), None, "summary[0].status: None is not one of"),
        (("configurations", 0, "batch_size"), -1, "configurations[0].batch_size: -1 is less"),
        (("configurations", 0, "id"), "\x1b[31m", "configurations[0].id: "),
        (("host", "cpu"), {"a": 1}, "host.cpu: {'a': 1} is not of"),
        (("host",), [], "host: [] is not of type 'object'"),
        (("seed",), -1, "seed: -1 is less than"),
        (("seed",), 1.5, "seed: 1.5 is not of type 'integer'"),
        (("schema_version",), {"a": [1]}, "has the schema version"),
    ],
)
def test_a_document_with_an_odd_value(
    tmp_path: Path, capsys: pytest.CaptureFixture, place: tuple, value: object, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document()))
    assert compare.main([str(path), str(path)]) == 0
    path.write_text(json.dumps(damaged(document(), place, value)))
    with refused(ValueError, rf"a\.json: .*{re.escape(message)}"):
        load(path)
    capsys.readouterr()
    assert compare.main([str(path), str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_more_windows_than_can_be_resampled(tmp_path: Path) -> None:
    found = document()
    found["rows"][0]["windows"] *= 50
    found["rows"] = found["rows"][:1] * (MAXIMUM_WINDOWS // 100 + 1)
    (tmp_path / "a.json").write_text(json.dumps(found))
    with refused(ValueError, "found 2,600 windows, expected at most 2,500"):
        load(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["", DEEP, DIGITS, "3", "[]", "\xff", '{"a":' * 100_000])
def test_what_is_no_document(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with refused(ValueError, r"a\.json"):
        load(tmp_path / "a.json")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with refused(ValueError, r"a\.json: expected a document in TOML or JSON, found no file"):
        load(tmp_path / "a.json")
