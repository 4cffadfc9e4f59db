"""A run's other processes: they train along with the one that writes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np

from shared.data.dataset import load_dataset
from shared.files.checkpoint import Checkpoint
from shared.run.command import TrainingOptions
from shared.run.folder import RunFolder
from shared.run.inputs import Agree, RunInputs


class FollowingRun(RunInputs):
    """The face of `shared.run.training.TrainingRun` without its files and its output.

    Several processes train one run: the first has a TrainingRun, every other one this. Ctrl-C
    is the first one's to notice.
    """

    @classmethod
    def open(cls, options: TrainingOptions, *, agree: Agree) -> Self:
        """Read the checkpoint that the run goes on from, if it does, and load the data.

        The folder of the run is expected under the same path on every host. Raises what
        `TrainingRun.open` raises.
        """
        checkpoint: Checkpoint | None = None
        if options.resume:
            checkpoint, _ = RunFolder(options.out).read_last_checkpoint(options)
        return cls(options, load_dataset(options.data, options.spec), checkpoint, agree)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._previous_handler)

    def record(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Learn at every tenth step whether the run is to stop."""
        self._stop_if(False, step)

    def save_initial_samples(self, images: np.ndarray) -> None:
        """Leave it to the first process."""

    def save_samples(self, step: int, images: np.ndarray) -> None:
        """Leave it to the first process."""

    def save_checkpoint(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Leave it to the first process."""
