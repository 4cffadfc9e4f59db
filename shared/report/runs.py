"""What the folders of runs hold, as they are at this moment: a run may still be being written."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from shared.files.errors import printable
from shared.interface import METRIC_NAMES
from shared.run.folder import LOSS_COLUMNS, QUALITY_COLUMNS, RunFolder
from shared.run.tensorboard import TAGS

MOST_STEPS = 2**53
"""Above it float64 does not hold every whole number."""

LARGEST = 1e100
"""Whatever is larger, either way, is not drawn: limits of axes overflow near the end of float64."""

_GRID = re.compile(r"step_(\d{6,})\.png")


class ReportError(ValueError):
    """What is there is not the folder of a run; the message says how to mend it."""


@dataclass(frozen=True)
class Table:
    """A CSV of a run: float64 [rows] by column, steps as int64 [rows], ascending."""

    steps: np.ndarray
    values: dict[str, np.ndarray]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.steps)


@dataclass(frozen=True)
class Run:
    """One run, which has at least one session.

    `grids`: every sample grid by its step, ascending. `notes`: sentences on what is missing or odd.
    """

    path: Path
    name: str
    spec: dict[str, Any]
    sessions: tuple[dict[str, Any], ...]
    losses: Table
    quality: Table
    grids: dict[int, Path]
    notes: tuple[str, ...]

    @property
    def asked_steps(self) -> int | None:
        """How many steps the last session was asked for, if that was recorded."""
        steps = self.sessions[-1]["options"].get("steps")
        return steps if type(steps) is int else None

    @property
    def completed_steps(self) -> int:
        """The last step of losses.csv, or 0."""
        return int(self.losses.steps[-1]) if len(self.losses) else 0

    @property
    def seconds(self) -> float | None:
        """How long the recorded steps took, in all sessions together."""
        return float(self.losses.values["seconds"][-1]) if len(self.losses) else None


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read the folders of runs, in their order; each gets a name that no other has.

    Raises ReportError for a folder that is missing, given twice or not a run's, and for a table
    whose columns or numbers are none; OSError where the disk refuses.
    """
    resolved = [path.resolve() for path in paths]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            raise ReportError(f"{printable(paths[index])} is given twice; name every run once")
    names = [path.name or str(path) for path in resolved]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [read_run(path, printable(name)) for path, name in zip(paths, names, strict=True)]


def read_run(path: Path, name: str) -> Run:
    """Read one folder; see `read_runs`."""
    folder = RunFolder(path)
    spec, sessions = _read_description(folder)
    losses, loss_notes = read_table(folder.losses, LOSS_COLUMNS)
    quality, quality_notes = read_table(folder.quality, QUALITY_COLUMNS)
    grids = _find_grids(folder.samples)
    notes = [*loss_notes, *_not_drawn(losses, METRIC_NAMES), *quality_notes]
    if not grids:
        notes.append("There are no sample grids.")
    run = Run(path, name, spec, tuple(sessions), losses, quality, grids, ())
    return replace(run, notes=(*_session_notes(run), *_progress_notes(run, folder), *notes))


def _read_description(folder: RunFolder) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    shown = printable(folder.path)
    if not folder.path.is_dir():
        found = "a file" if folder.path.exists() else "nothing"
        raise ReportError(f"{shown}: expected the folder of a run, found {found}")
    if not folder.description.is_file():
        raise ReportError(
            f"{shown}: expected the folder of a run, found no run.json in it; "
            "name the folder that was training's --out"
        )
    try:
        content = json.loads(folder.description.read_text(encoding="utf-8"))
        spec, sessions = dict(content["spec"]), [dict(s) for s in content["sessions"]]
        for session in sessions:
            session["options"] = dict(session["options"])
            session["versions"] = dict(session.get("versions", {}))
    except (ValueError, TypeError, KeyError) as error:  # of json.loads, dict() and the look-ups
        raise ReportError(
            f"{shown}/run.json: expected what training writes (spec, and sessions with their "
            f"options), found another or damaged file ({type(error).__name__}: {error})"
        ) from error
    if not sessions:
        raise ReportError(f"{shown}/run.json: expected at least one session, found none")
    return spec, sessions


def read_table(path: Path, columns: tuple[str, ...]) -> tuple[Table, list[str]]:
    """Return a CSV, and notes on what is missing of it; a last line without its end is left out.

    Raises ReportError for other columns, for what is not a number and for steps out of order.
    """
    if not path.exists():
        return _table([], columns), [f"There is no {path.name}."]
    notes = []
    # Whatever is not UTF-8 becomes a character that is no number, which is reported with its line.
    *lines, rest = path.read_text(encoding="utf-8", errors="replace").split("\n")
    if rest:
        notes.append(f"The last line of {path.name} is half-written and left out.")
    if lines and tuple(lines[0].strip().split(",")) != columns:
        raise ReportError(
            f"{printable(path)}: expected the columns {','.join(columns)}, "
            f"received {_shortened(lines[0])}"
        )
    rows = [_numbers(path, number, line, columns) for number, line in enumerate(lines[1:], 2)]
    for number, (row, after) in enumerate(itertools.pairwise(rows), 3):
        if after[0] <= row[0]:
            raise ReportError(
                f"{printable(path)}, line {number}: expected a step after {row[0]:.0f}, "
                f"received {after[0]:.0f}; two runs may have written to it"
            )
    if not rows:
        notes.append(f"{path.name} holds no row yet.")
    return _table(rows, columns), notes


def _table(rows: list[list[float]], columns: tuple[str, ...]) -> Table:
    array = np.array(rows, dtype=np.float64).reshape(len(rows), len(columns))
    values = {name: array[:, index] for index, name in enumerate(columns) if name != "step"}
    return Table(array[:, columns.index("step")].astype(np.int64), values)


def _numbers(path: Path, number: int, line: str, columns: tuple[str, ...]) -> list[float]:
    fields = line.strip().split(",")
    try:
        row = [float(int(fields[0])), *map(float, fields[1:])]
    except (ValueError, OverflowError):
        row = []
    if len(row) != len(columns) or not 0 <= row[0] < MOST_STEPS:
        raise ReportError(
            f"{printable(path)}, line {number}: expected {len(columns)} numbers "
            f"({','.join(columns)}), received {_shortened(line)}; remove the line"
        )
    return row


def _shortened(line: str) -> str:
    """Return a line as it can be shown in a message of one line."""
    return repr(line if len(line) <= 60 else line[:59] + "…")


def _find_grids(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    found = ((_GRID.fullmatch(path.name), path) for path in folder.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def _session_notes(run: Run) -> list[str]:
    if len(run.sessions) == 1:
        return []
    starts = [
        f"{session['options'].get('implementation', 'unknown')} from step {session.get('start')}"
        for session in run.sessions
    ]
    return [f"In {len(run.sessions)} sessions: {', '.join(starts)}."]


def _progress_notes(run: Run, folder: RunFolder) -> list[str]:
    """Return what there is to say about a run that has not made all its steps."""
    if run.asked_steps is None or run.completed_steps >= run.asked_steps:
        return []
    text = f"{run.completed_steps:,} of {run.asked_steps:,} steps are recorded: the run is going on"
    text += " or was stopped."
    if folder.losses.exists():
        written = datetime.fromtimestamp(folder.losses.stat().st_mtime, UTC)
        text += f" losses.csv was last written at {written:%Y-%m-%d %H:%M} UTC."
    return [text]


def drawable(values: np.ndarray) -> np.ndarray:
    """Return, as bool of the same shape, which values a plot can show."""
    return np.abs(values) <= LARGEST


def _not_drawn(losses: Table, names: Sequence[str]) -> list[str]:
    notes = []
    for name in names:
        bad = np.flatnonzero(~drawable(losses.values[name]))
        if len(bad):
            value = losses.values[name][bad[0]]
            shown = "NaN" if math.isnan(value) else f"{value:g}"
            notes.append(
                f"{TAGS[name]} is {shown} at step {losses.steps[bad[0]]:,}; what is NaN, infinite "
                f"or beyond {LARGEST:g} is a gap in the plot ({len(bad):,} in all)."
            )
    return notes
