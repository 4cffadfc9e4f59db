"""Reports on runs that are unfinished, damaged, bare or none."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.files.errors import InputError
from shared.report.__main__ import main
from shared.report.runs import duration, read_run
from shared.run.folder import LOSS_COLUMNS, read_table
from tests.report.pages import figures, plots, report, rows_of, write_run


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Return the line of an error; AssertionError unless it is one line and exit code 2."""
    try:
        code = main([*map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("python -m shared.report: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


# --- bad input ---------------------------------------------------------------------------------


def make_file(run: Path) -> None:
    run.write_text("")


def make_empty(run: Path) -> None:
    run.mkdir()


def damage(name: str, old: str, new: str) -> Any:
    def change(run: Path) -> None:
        write_run(run)
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new, 1))

    return change


def describe(content: Any) -> Any:
    def change(run: Path) -> None:
        write_run(run)
        (run / "run.json").write_text(json.dumps(content))

    return change


BAD_RUNS = {
    "missing": (lambda run: None, "run: expected the folder of a run, found no run.json in it"),
    "a file": (make_file, "run: expected the folder of a run, found no run.json in it"),
    "empty": (make_empty, "found no run.json in it; name the folder that was training's --out"),
    "half a description": (damage("run.json", "}", ""), "run.json: expected what training writes"),
    "a list": (
        describe([]),
        "run.json: expected what training writes (spec, and one or more sessions",
    ),
    "no sessions": (
        describe({"spec": {}, "sessions": []}),
        "one or more sessions with their options), found another or damaged file (IndexError",
    ),
    "no options": (describe({"spec": {}, "sessions": [{}]}), "KeyError: 'options'"),
    "versions": (
        describe({"spec": {}, "sessions": [{"options": {}, "versions": 3}]}),
        "run.json: expected what training writes",
    ),
    "columns": (
        damage("losses.csv", "generator_loss", "loss"),
        "losses.csv: expected the columns step,discriminator_loss,",
    ),
    "words": (
        damage("losses.csv", "\n3,", "\n3,high,"),
        "losses.csv, line 4: expected 6 numbers (step,discriminator_loss",
    ),
    "a fraction": (damage("quality.csv", "\n4,", "\n4.5,"), "quality.csv, line 3: expected 2"),
    "a huge step": (
        damage("quality.csv", "\n4,", f"\n{'9' * 400},"),
        "line 3: expected 2 numbers (step,swd), the step above 0, received '999",
    ),
    "not text": (damage("quality.csv", "\n4,", "\n\x00\x00,"), "quality.csv, line 3: expected 2"),
    "backwards": (
        damage("losses.csv", "\n9,", "\n2,"),
        ",seconds), the step above 8, received '2,",
    ),
}


@pytest.mark.parametrize("name", BAD_RUNS)
def test_what_is_not_a_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, message = BAD_RUNS[name]
    make(tmp_path / "run")
    good = write_run(tmp_path / "good")
    line = refuse(capsys, good, tmp_path / "run", "--out", tmp_path / "page.html")
    assert message in line
    assert f"{tmp_path}/run" in line
    assert len(line) < 450 + len(str(tmp_path))
    assert not (tmp_path / "page.html").exists()


def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    same = tmp_path / "." / "run" / ".." / "run"
    out = "--out"
    assert "following arguments are required: RUN" in refuse(capsys)
    assert "given twice; name every run once" in refuse(capsys, run, same)
    assert "expected a name that ends in .html" in refuse(capsys, run, out, run / "losses.csv")
    (tmp_path / "folder.html").mkdir()
    assert "is a folder; name a file in it" in refuse(capsys, run, out, tmp_path / "folder.html")
    assert "there is no folder" in refuse(capsys, run, out, tmp_path / "none" / "page.html")
    assert len(list(tmp_path.iterdir())) == 2


def test_help_in_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "shared.report", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert "--out PAGE" in result.stdout
    assert "exit code 2" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


# --- the page appears whole or not at all ------------------------------------------------------


def test_a_page_that_cannot_be_finished_leaves_the_old_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = write_run(tmp_path / "run"), tmp_path / "page.html"
    out.write_text("old")

    def full(*arguments: object) -> None:
        assert out.read_text() == "old"  # whatever was written so far was not written there
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "No space left on device" in refuse(capsys, run, "--out", out)
    assert out.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "page.html"}
    monkeypatch.undo()
    report(run)
    assert out.read_text().startswith("<!doctype html>")


# --- runs that are not finished ----------------------------------------------------------------


def test_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for name in ("losses.csv", "quality.csv"):
        (run / name).write_text((run / name).read_text()[:-3])
    os.utime(run / "losses.csv", (0, 0))
    page = report(run)
    assert "The last line of losses.csv is half-written and left out." in page.text
    assert "The last line of quality.csv is half-written and left out." in page.text
    assert "11 of 12 steps are recorded: the run is going on or was stopped." in page.text
    assert "losses.csv was last written at 1970-01-01 00:00 UTC." in page.text
    assert rows_of(page.all("table")[0])["steps"] == ["11 of 12"]
    assert rows_of(page.all("table")[0])["duration"] == ["0:00:16"]


def test_a_table_cut_anywhere_gives_its_whole_rows(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run") / "losses.csv"
    content = path.read_bytes()
    header = content.index(b"\n") + 1
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        table, notes = read_table(path, LOSS_COLUMNS)
        assert len(table) == max(0, content[:length].count(b"\n") - 1)
        assert any("half-written" in note for note in notes) == (
            length > 0 and content[length - 1 : length] != b"\n"
        )
        assert any("no row yet" in note for note in notes) == (len(table) == 0)
    assert header < len(content)


def test_a_run_that_has_just_been_started(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for path in sorted(run.rglob("*"), reverse=True):
        if path.name != "run.json":
            path.rmdir() if path.is_dir() else path.unlink()
    full = write_run(tmp_path / "full")
    page = report(run, full)
    for note in (
        "run: 0 of 12 steps are recorded",
        "run: There is no losses.csv.",
        "run: There is no quality.csv.",
        "run: There are no sample grids.",
    ):
        assert note in page.text
    assert not any("full:" in note.text for note in page.of_class("notes"))
    assert len(figures(page)) == 1
    assert rows_of(page.all("table")[1])["best"] == ["", "7.7 (step 12)"]
    assert len(plots(page)) == 5
    alone = report(run)
    assert "No run has samples." in alone.text
    assert "No step is recorded yet." in alone.text
    assert "No run has a quality.csv with a value." in alone.text
    assert not alone.all("img")
    assert not alone.all("div", id="slider")


def test_quality_without_a_finite_value(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "quality.csv").write_text("step,swd\n0,nan\n4,nan\n")
    page = report(run)
    assert rows_of(page.all("table")[1]) == {
        "first": ["nan (step 0)"], "best": [""], "last": ["nan (step 4)"],
    }  # fmt: skip
    assert "swd" not in plots(page)


# --- names -------------------------------------------------------------------------------------


def test_runs_of_the_same_name_go_by_their_paths(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a" / "run"), write_run(tmp_path / "b" / "run")]
    page = report(*runs)
    assert [item.text for item in page.of_class("legend")[0].all("li")] == [*map(str, runs)]


def test_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_run(tmp_path / "here"))
    assert main(["."]) == 0
    assert re.search("<h1>Training: here</h1>", Path("report.html").read_text())


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/run-\xff")
    assert "Training: run-\\udcff" in report(write_run(Path(folder))).text


def test_another_error_of_reading_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no run"):
        read_run(tmp_path / "none", "none")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(float("nan"), "—"), (1e300, "—"), (0.0, "0:00:00"), (59.96, "0:01:00"),
     (1180.4, "0:19:40"), (7405, "2:03:25"), (100_000, "1 day, 3:46:40")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
