"""What the folders of runs hold, as they are at this moment: a run may still be being written."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from shared.files.errors import InputError
from shared.interface import Array
from shared.run.folder import LOSS_COLUMNS, QUALITY_COLUMNS, RunFolder, numbered
from shared.run.tensorboard import TAGS

MOST_STEPS = 2**53
"""Above it float64 does not hold every whole number."""

LARGEST = 1e100
"""Whatever is larger, either way, is not drawn: limits of axes overflow near the end of float64."""


class ReportError(InputError):
    """What is there is not the folder of a run; the message says how to fix it."""


@dataclass(frozen=True)
class Run:
    """One run, which has at least one session.

    `losses` and `quality`: the tables as structured arrays [rows], of int64 `step`, which ascends,
    and a float64 for each other column. `grids`: every sample grid by its step, ascending.
    `notes`: sentences on what is missing or odd.
    """

    path: Path
    name: str
    spec: dict[str, Any]
    sessions: list[dict[str, Any]]
    losses: Array
    quality: Array
    grids: dict[int, Path]
    notes: list[str]

    @property
    def asked_steps(self) -> int | None:
        """How many steps the last session was asked for, if that was recorded."""
        steps = self.sessions[-1]["options"].get("steps")
        return steps if type(steps) is int else None

    @property
    def completed_steps(self) -> int:
        """The last step of losses.csv, or 0."""
        return int(self.losses["step"][-1]) if len(self.losses) else 0

    @property
    def seconds(self) -> float | None:
        """How long the recorded steps took, in all sessions together."""
        return float(self.losses["seconds"][-1]) if len(self.losses) else None

    @property
    def last_written(self) -> datetime | None:
        """When losses.csv was last written to."""
        path = RunFolder(self.path).losses
        return datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.exists() else None


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read the folders of runs, in their order; each gets a name that no other has.

    Raises ReportError for a folder that is missing, given twice or not a run's, and for a table
    whose columns or numbers are none; OSError for a disk error.
    """
    resolved = [path.resolve() for path in paths]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            raise ReportError(f"{paths[index]} is given twice; name every run once")
    names = [path.name or str(path) for path in resolved]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [read_run(path, name) for path, name in zip(paths, names, strict=True)]


def read_run(path: Path, name: str) -> Run:
    """Read one folder; see `read_runs`."""
    folder = RunFolder(path)
    spec, sessions = _read_description(folder)
    losses, loss_notes = read_table(folder.losses, LOSS_COLUMNS)
    quality, quality_notes = read_table(folder.quality, QUALITY_COLUMNS)
    grids = numbered(folder.samples)
    notes = [*loss_notes, *_not_drawn(losses), *quality_notes]
    notes += [] if grids else ["There are no sample grids."]
    return Run(path, name, spec, sessions, losses, quality, grids, notes)


def _read_description(folder: RunFolder) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if not folder.description.is_file():
        raise ReportError(
            f"{folder.path}: expected the folder of a run, found no run.json in it; "
            "name the folder that was training's --out"
        )
    try:
        content = json.loads(folder.description.read_text(encoding="utf-8"))
        sessions = [
            {**s, "options": dict(s["options"]), "versions": dict(s.get("versions", {}))}
            for s in content["sessions"]
        ]
        sessions[-1]  # there is at least one
        return dict(content["spec"]), sessions
    except (ValueError, TypeError, LookupError) as error:  # of json.loads, dict() and the look-ups
        raise ReportError(
            f"{folder.description}: expected what training writes (spec, and one or more sessions "
            "with their options), found another or damaged file "
            f"({type(error).__name__}: {error}); name the folder of another run"
        ) from error


def read_table(path: Path, columns: tuple[str, ...]) -> tuple[Array, list[str]]:
    """Return a CSV as a structured array [rows], and notes on what is missing of it.

    A last line without its end is left out. Raises ReportError for other columns, for what is not
    a number and for steps out of order.
    """
    kind = [(name, np.int64 if name == "step" else np.float64) for name in columns]
    if not path.exists():
        return np.empty(0, kind), [f"There is no {path.name}."]
    # Whatever is not UTF-8 becomes a character that is no number, which is reported with its line.
    *lines, rest = path.read_text(encoding="utf-8", errors="replace").split("\n")
    names = ",".join(columns)
    if lines and lines[0].strip() != names:
        raise ReportError(f"{path}: expected the columns {names}, received {lines[0]!r:.60}")
    rows: list[tuple[float, ...]] = []
    for number, line in enumerate(lines[1:], 2):
        last = rows[-1][0] if rows else -1
        try:
            step, *values = line.split(",")
            rows.append((int(step), *map(float, values)))
            if len(rows[-1]) != len(columns) or not last < rows[-1][0] < MOST_STEPS:
                raise ValueError
        except ValueError:
            raise ReportError(
                f"{path}, line {number}: expected {len(columns)} numbers ({names}), the step above "
                f"{last}, received {line!r:.60}; remove the line, or find out whether two runs "
                "have written to the file"
            ) from None
    notes = [f"The last line of {path.name} is half-written and left out."] if rest else []
    notes += [] if rows else [f"{path.name} holds no row yet."]
    return np.array(rows, kind), notes


def drawable(values: Array) -> Array:
    """Return, as bool of the same shape, which values a plot can show."""
    return np.abs(values) <= LARGEST


def _not_drawn(losses: Array) -> list[str]:
    notes = []
    for name, tag in TAGS.items():
        bad = losses[~drawable(losses[name])]
        if len(bad):
            value = f"{bad[name][0]:g}".replace("nan", "NaN")
            notes.append(
                f"{tag} is {value} at step {bad['step'][0]:,}; what is NaN, infinite or beyond "
                f"{LARGEST:g} is a gap in the plot ({len(bad):,} in all)."
            )
    return notes
