"""What the folders of runs hold at this moment, and their settings in words: which differ."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.files.documents import flattened
from shared.files.errors import InputError
from shared.interface import METRIC_NAMES, Array
from shared.run.folder import LOSS_COLUMNS, QUALITY_COLUMNS, RunFolder, numbered, read_table
from shared.spec import NETWORKS

LONGEST = 100 * 365 * 86_400  # seconds
LARGEST = 1e100  # beyond it nothing is drawn: limits of axes overflow near the end of float64


class Run(NamedTuple):
    """One run, of at least one session; `notes` are sentences on what is missing or odd.

    `losses` and `quality`: structured arrays [rows], of int64 `step`, ascending, and a float64 for
    each other column. `grids`: every sample grid by its step, ascending. `steps`: "11 of 12".
    """

    path: Path
    name: str
    spec: dict[str, Any]
    sessions: list[dict[str, Any]]
    steps: str
    losses: Array
    quality: Array
    grids: dict[int, Path]
    notes: list[str]


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read folders of runs, each under a name of its own; InputError for any other, OSError."""
    resolved = [path.resolve() for path in paths]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            raise InputError(f"{paths[index]} is given twice; name every run once")
    names = [path.name or str(path) for path in resolved]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [read_run(path, name) for path, name in zip(paths, names, strict=True)]


def read_run(path: Path, name: str) -> Run:
    """Read one folder; see `read_runs`."""
    folder = RunFolder(path)
    spec, sessions = folder.read_description()
    losses, loss_notes = read_table(folder.losses, LOSS_COLUMNS)
    quality, quality_notes = read_table(folder.quality, QUALITY_COLUMNS)
    grids = numbered(folder.samples)
    for column in METRIC_NAMES:
        bad = losses[np.isnan(drawn(losses[column]))]
        if len(bad):
            value = f"{bad[column][0]:g}".replace("nan", "NaN")
            gap = f"what is NaN, infinite or beyond {LARGEST:g} is a gap in the plot"
            first = f"{column} is {value} at step {bad['step'][0]:,}"
            loss_notes.append(f"{first}; {gap} ({len(bad):,} in all).")
    notes = [*loss_notes, *quality_notes, *([] if grids else ["There are no sample grids."])]
    asked, completed = sessions[-1]["options"].get("steps"), [0, *losses["step"].tolist()][-1]
    steps = f"{completed:,} of {asked:,}" if type(asked) is int else f"{completed:,}"
    if type(asked) is int and completed < asked:
        notes.insert(0, f"{steps} steps are recorded: the run is going on or was stopped.")
        if folder.losses.exists():
            written = datetime.fromtimestamp(folder.losses.stat().st_mtime, UTC)
            notes[0] += f" losses.csv was last written at {written:%Y-%m-%d %H:%M} UTC."
    return Run(path, name, spec, sessions, steps, losses, quality, grids, notes)


def drawn(values: Array) -> Array:
    """Return values with NaN for those that a plot cannot show."""
    return np.where(np.abs(values) <= LARGEST, values, np.nan)


SPEC, OPTIONS, ENVIRONMENT, VERSIONS = "system", "options", "environment", "versions"
LOSS, DATASET = (SPEC, "loss"), (ENVIRONMENT, "dataset")
ABSENT = "—"


class Setting(NamedTuple):
    """One setting and its value in each run, in the order of the runs."""

    group: str
    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether two runs differ in it. A package that a run did without is no difference."""
        return len(set(self.values) - ({ABSENT} if self.group == VERSIONS else set())) > 1

    @property
    def is_chosen(self) -> bool:
        """Whether it says what was run, not where it ran or into which folder it was written."""
        chosen = self.group in (SPEC, OPTIONS) and self.name not in ("out", "resume")
        return chosen or (self.group, self.name) == DATASET

    @property
    def in_brief(self) -> list[str]:
        """The values, of absolute paths only that by which they differ."""
        paths = [value for value in self.values if os.path.isabs(value)]
        common = os.path.commonpath([os.path.dirname(path) for path in paths] or ["/"])
        return [os.path.relpath(v, common) if v in paths else v for v in self.values]


def compare_settings(runs: Sequence[Run]) -> list[Setting]:
    """Return every setting that any of the runs recorded, group by group."""
    all_settings = [effective_settings(run) for run in runs]
    # A dict keeps the order in which the keys came; the groups are brought together after that.
    keys = list(dict.fromkeys(key for settings in all_settings for key in settings))
    keys.sort(key=lambda key: (SPEC, OPTIONS, ENVIRONMENT, VERSIONS).index(key[0]))
    return [Setting(*key, tuple(s.get(key, ABSENT) for s in all_settings)) for key in keys]


def effective_settings(run: Run) -> dict[tuple[str, str], str]:
    """Return (group, name) → value; one that changed between sessions as "before → after"."""
    groups = [(SPEC, run.spec)]
    for session in run.sessions:
        rest = {k: v for k, v in session.items() if k not in ("start", "options", "versions")}
        groups += [(OPTIONS, session["options"]), (ENVIRONMENT, rest)]
        groups += [(VERSIONS, session["versions"])]
    texts: dict[tuple[str, str], list[str]] = {}
    for group, content in groups:
        for name, value in flattened(content).items():
            value = "default" if value is None else value
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            history = texts.setdefault((group, name), [])
            history += [text] if history[-1:] != [text] else []
    return {key: " → ".join(history) for key, history in texts.items()}


def headline(run: Run) -> dict[str, str]:
    """Return what a reader wants to know first of a run; what was not recorded is a dash."""
    settings = effective_settings(run)

    def shown(group: str, name: str) -> str:
        return settings.get((group, name), ABSENT)

    rates = [f"{name} {shown(SPEC, f'{name}_optimizer.learning_rate')}" for name in NETWORKS]
    versions = [f"{name} {text}" for (group, name), text in settings.items() if group == VERSIONS]
    return {
        "system": f"{shown(SPEC, 'name')}, width {shown(SPEC, 'width')}",
        "loss": shown(*LOSS),
        "framework": shown(OPTIONS, "implementation"),
        "versions": ", ".join(versions) or ABSENT,
        "data": shown(*DATASET),
        "seed": shown(OPTIONS, "seed"),
        "steps": run.steps,
        "batch size": shown(SPEC, "batch_size"),
        "learning rates": ", ".join(rates),
        "dtype": shown(OPTIONS, "dtype"),
        "device": shown(ENVIRONMENT, "device"),
        "environment": f"Python {shown(ENVIRONMENT, 'python')}, {shown(ENVIRONMENT, 'platform')}",
        "duration": duration(run.losses["seconds"][-1]) if len(run.losses) else ABSENT,
    }


def duration(seconds: float) -> str:
    """Return a time such as "0:19:40"; a dash for one of more than a century, or NaN."""
    return str(timedelta(seconds=round(seconds))) if abs(seconds) < LONGEST else ABSENT
