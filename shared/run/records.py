"""The records of a run while it trains: its losses, the quality of its samples, its events."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

from shared.run.failures import naming_file
from shared.run.folder import LOSS_COLUMNS, QUALITY_COLUMNS, RunFolder
from shared.run.tensorboard import TAGS, EventFile


class RunRecords:
    """losses.csv, quality.csv and, if `tensorboard` is asked for, an event file; open for writing.

    What earlier sessions wrote about steps after `completed` is cut off. `earlier_seconds` is how
    long the run had taken by then, `last_quality` what quality.csv ends in, or None.
    """

    def __init__(self, folder: RunFolder, completed: int, *, tensorboard: bool) -> None:
        self.earlier_seconds = folder.cut_table(folder.losses, LOSS_COLUMNS, completed) or 0.0
        self.last_quality = folder.cut_table(folder.quality, QUALITY_COLUMNS, completed)
        self._folder = folder
        self._wall_start = time.time() - self.earlier_seconds
        with contextlib.ExitStack() as files:
            self._losses = files.enter_context(open(folder.losses, "a"))
            self._quality = files.enter_context(open(folder.quality, "a"))
            self._events: EventFile | None = None
            if tensorboard:
                self._events = EventFile(folder.path, completed)
                files.callback(self._events.close)
            self._files = files.pop_all()

    def add_losses(self, completed: int, values: Mapping[str, float], seconds: float) -> None:
        """Write the METRIC_NAMES of one step and the seconds since the start; see `flush`."""
        fields = [str(completed), *map(repr, values.values()), f"{seconds:.3f}"]
        self._losses.write(",".join(fields) + "\n")
        if self._events:
            tagged = {TAGS[name]: value for name, value in values.items()}
            self._events.add_scalars(completed, tagged, self._wall_start + seconds)

    def add_samples(self, completed: int, picture: Path, distance: float) -> None:
        """Write the distance of samples to real images, and show TensorBoard their PNG."""
        self.last_quality = distance
        self._quality.write(f"{completed},{distance!r}\n")
        if self._events:
            now = time.time()
            self._events.add_image(completed, "samples", picture.read_bytes(), now)
            if math.isfinite(distance):
                self._events.add_scalars(completed, {"swd": distance}, now)
        self.flush()

    def flush(self) -> None:
        """Let a reader see everything that was written; OSError names the file."""
        with naming_file(self._folder.losses):
            self._losses.flush()
        with naming_file(self._folder.quality):
            self._quality.flush()
        if self._events:
            with naming_file(self._folder.path / "events.out.tfevents"):
                self._events.flush()

    def synchronize(self) -> None:
        """Make what was written survive a power cut; a checkpoint must not be ahead of it."""
        self.flush()
        for file in (self._losses, self._quality):
            os.fsync(file.fileno())

    def close(self) -> None:
        """End the files."""
        self._files.close()
