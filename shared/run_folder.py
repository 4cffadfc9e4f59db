"""The folder of a run: which file lies where, what is already there, which checkpoint is last.

    run.json                             spec, and options and versions of every session
    losses.csv                           completed steps, METRIC_NAMES, seconds since the start
    losses.png                           drawn at the end
    quality.csv                          completed steps, what shared.sample_quality measures
    events.out.tfevents.*                with --tensorboard, one for every session
    .lock                                held while a process trains into the folder
    samples/step_000200.png              the same 64 latents every time
    checkpoints/step_000200.safetensors  see shared.checkpoint_format

The numbers in file names and in the tables count completed steps, so step index 199 makes 200.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from shared.checkpoint_format import (
    Checkpoint,
    CheckpointError,
    read_checkpoint,
    spec_differences,
    write_file_atomically,
)
from shared.command_line import TrainingOptions
from shared.interface import METRIC_NAMES

LOSS_COLUMNS = ("step", *METRIC_NAMES, "seconds")
QUALITY_COLUMNS = ("step", "swd")
_NUMBERED = re.compile(r"step_(\d{6,})\.(png|safetensors)")


class RunFolder:
    """The paths of one run, and the questions that starting and resuming ask of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.description = path / "run.json"
        self.losses = path / "losses.csv"
        self.losses_plot = path / "losses.png"
        self.quality = path / "quality.csv"
        self.samples = path / "samples"
        self.checkpoints = path / "checkpoints"

    def sample(self, completed: int) -> Path:
        """The grid of samples after so many completed steps."""
        return self.samples / f"step_{completed:06d}.png"

    def checkpoint(self, completed: int) -> Path:
        """The checkpoint after so many completed steps."""
        return self.checkpoints / f"step_{completed:06d}.safetensors"

    def latest_sample(self, completed: int) -> Path | None:
        """The last grid of samples that is there and not from after so many steps."""
        return next((p for n, p in _newest_first(self.samples) if n <= completed), None)

    def latest_checkpoint(self, completed: int) -> Path | None:
        """The last checkpoint that is there and not from after so many steps."""
        return next((p for n, p in _newest_first(self.checkpoints) if n <= completed), None)

    def require_free(self) -> None:
        """Raise ValueError if a run is here, NotADirectoryError if a file is."""
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(
                f"--out {self.path} is a file; expected a folder or a new name"
            )
        parts = (self.description, self.losses, self.samples, self.checkpoints)
        if taken := [part.name for part in parts if part.exists()]:
            raise ValueError(
                f"--out {self.path} already holds a run ({', '.join(taken)}); "
                "continue it with --resume or choose another name"
            )

    def lock(self) -> BaseFileLock:
        """Hold the folder for one process at a time, until the release or the process' end.

        Makes the folder if there is none. Raises ValueError if another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ValueError(
                f"another process is training into --out {self.path}; wait for its end or choose "
                "another name"
            ) from error
        return lock

    def read_last_checkpoint(self, options: TrainingOptions) -> tuple[Checkpoint, list[str]]:
        """Return the last checkpoint that can be read, and notes on those that could not.

        Raises ValueError where there is none at all, CheckpointError where none can be read or
        where it was made with another spec, seed or dtype.
        """
        if not (files := _newest_first(self.checkpoints)):
            raise ValueError(
                f"nothing to resume: {self.checkpoints} holds no checkpoint; "
                "leave --resume out or name the folder of a run with --out"
            )
        notes = []
        for _, path in files:
            try:
                checkpoint = read_checkpoint(path)
            except CheckpointError as error:
                notes.append(f"skipped: {error}")
                continue
            _require_same_run(path, checkpoint, options)
            writer = checkpoint.progress.get("implementation")
            return checkpoint, [*notes, f"resuming from {path} (written by {writer})"]
        raise CheckpointError(f"no checkpoint can be read: {'; '.join(notes)}")

    def create(self) -> None:
        """Make the folders that are missing."""
        self.samples.mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)

    def add_session(self, spec: dict[str, Any], session: dict[str, Any]) -> None:
        """Add one start of the run to run.json; a run that was resumed has several."""
        sessions = []
        if self.description.exists():
            sessions = json.loads(self.description.read_text())["sessions"]
        content = {"spec": spec, "sessions": [*sessions, session]}
        write_file_atomically(self.description, json.dumps(content, indent=2).encode())

    def cut_losses(self, completed: int) -> float:
        """Leave in losses.csv the header and the rows of the first `completed` steps.

        Makes the file if there is none. Returns the seconds of the last row that stays, or 0.
        """
        kept = _cut(self.losses, LOSS_COLUMNS, completed)
        return float(kept[-1][-1]) if kept else 0.0

    def cut_quality(self, completed: int) -> float | None:
        """Leave in quality.csv the header and the rows of the first `completed` steps.

        Makes the file if there is none. Returns the distance of the last row that stays.
        """
        kept = _cut(self.quality, QUALITY_COLUMNS, completed)
        return float(kept[-1][-1]) if kept else None

    def has_losses(self) -> bool:
        """Whether losses.csv holds any step."""
        return bool(_rows(self.losses, LOSS_COLUMNS))


def _cut(path: Path, columns: tuple[str, ...], completed: int) -> list[list[str]]:
    """Leave in a table the header and the rows of the first `completed` steps; return those."""
    kept = [row for row in _rows(path, columns) if int(row[0]) <= completed]
    lines = [",".join(row) + "\n" for row in [list(columns), *kept]]
    write_file_atomically(path, "".join(lines).encode())
    return kept


def _rows(path: Path, columns: tuple[str, ...]) -> list[list[str]]:
    """Return the rows below the header; a row that a crash cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)[1:]
    rows = [line.strip().split(",") for line in lines if line.endswith("\n")]
    return [row for row in rows if len(row) == len(columns)]


def _newest_first(folder: Path) -> list[tuple[int, Path]]:
    """Return the numbered files of a folder with their numbers."""
    if not folder.is_dir():
        return []
    found = [(int(m[1]), p) for p in folder.iterdir() if (m := _NUMBERED.fullmatch(p.name))]
    return sorted(found, reverse=True)


def _require_same_run(path: Path, checkpoint: Checkpoint, options: TrainingOptions) -> None:
    differences = spec_differences(checkpoint.spec, options.spec)
    for name in ("seed", "dtype"):
        found, asked = checkpoint.progress.get(name), getattr(options, name)
        if found != asked:
            differences.append(f"{name}: {found} in the checkpoint, {asked} asked for")
    if differences:
        raise CheckpointError(
            f"{path} is from a run with other options ({'; '.join(differences)}); "
            "repeat those of the first run or choose another --out"
        )
