"""A training run without the training: its folder, its inputs, its records, its way back.

The folder is `shared.run.folder`'s. What is here knows no framework: a `fit` asks it for inputs
and hands it arrays.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np

from shared.data.dataset import ImageDataset, load_dataset
from shared.files.checkpoint import Checkpoint, write_checkpoint
from shared.interface import METRIC_NAMES
from shared.quality.sample_quality import SampleQuality
from shared.run.announcement import announcement, session_entry, what_was_made
from shared.run.collapse import DiscriminatorWatch
from shared.run.console import EXIT_OUTPUT_CLOSED, Output, print_error
from shared.run.failures import (
    NonFiniteLossError,
    NonFiniteStateError,
    StoppedEarly,
    describe_non_finite,
    naming_file,
    what_to_try,
)
from shared.run.folder import RunFolder
from shared.run.inputs import SAMPLE_COUNT, Agree, RunInputs
from shared.run.options import TrainingOptions
from shared.run.pictures import image_grid, plot_losses, save_png
from shared.run.progress import ProgressDisplay
from shared.run.records import RunRecords
from shared.run.signals import StopSignals
from shared.run.tensorboard import require_tensorboard

__all__ = ["NonFiniteLossError", "NonFiniteStateError", "TrainingRun"]

FLUSH_EVERY = 10  # steps between two readings of the metrics, each of which waits for the device


class TrainingRun(RunInputs):
    """One run of `fit`, from its options to its last picture.

    >>> run = TrainingRun.open(options, device="cpu", versions={"torch": torch.__version__})
    >>> with run:
    ...     if run.restored is None:
    ...         run.save_initial_samples(images)  # of run.sample_latents
    ...     for step in run.remaining_steps():
    ...         real_images, latents = run.inputs(step)
    ...         run.record(step, metrics)  # what the framework's step returned
    ...         if run.sample_due(step):
    ...             run.save_samples(step, images)
    ...         if run.checkpoint_due(step):
    ...             run.save_checkpoint(step, arrays)

    `record` comes before the two questions: it is where Ctrl-C makes a step the last one. At the
    end of the `with` a run that was stopped so raises StoppedEarly, a KeyboardInterrupt, which
    says how to go on.
    """

    def __init__(
        self,
        options: TrainingOptions,
        dataset: ImageDataset,
        checkpoint: Checkpoint | None,
        agree: Agree | None,
        device: str,
        versions: Mapping[str, str],
    ) -> None:
        super().__init__(options, dataset, checkpoint, agree)
        self._folder = RunFolder(options.out)
        self._dataset = dataset
        self._device = device
        self._versions = dict(versions)
        self._completed = self.start
        self._signals = StopSignals(alone=agree is None)
        self._pending: list[tuple[int, Mapping[str, Any], float]] = []
        self._quality = SampleQuality(dataset, options.spec, SAMPLE_COUNT)
        self._watch = DiscriminatorWatch(options.spec.loss)
        self._output = Output()
        images_per_step = options.spec.batch_size * options.spec.discriminator_steps
        self._display = ProgressDisplay(self.start, options.steps, images_per_step, self._output)

    @classmethod
    def open(
        cls,
        options: TrainingOptions,
        *,
        device: str,
        versions: Mapping[str, str],
        agree: Agree | None = None,
    ) -> Self:
        """Check the folder, read the last checkpoint when resuming, load the data, say it all.

        `device` is the framework's name of the one that it runs on, `versions` are those of its
        packages, `agree` is given where several processes train this run, and this is the first.
        Nothing is written yet. Raises ValueError for a folder that is taken or holds nothing to
        resume, CheckpointError for a checkpoint of other options, DataError for the
        data, MissingFrameworkError for a tensorboard that is asked for and not installed.
        """
        if options.tensorboard:
            require_tensorboard()
        checkpoint: Checkpoint | None = None
        notes: list[str] = []
        if options.resume:
            checkpoint, notes = RunFolder(options.out).read_last_checkpoint(options)
        else:
            RunFolder(options.out).require_free()
        dataset = load_dataset(options.data, options.spec)
        if checkpoint and checkpoint.progress.get("dataset") != dataset.description:
            notes.append(f"note: it was trained on {checkpoint.progress.get('dataset')}")
        run = cls(options, dataset, checkpoint, agree, device, versions)
        if run.start >= options.steps:
            notes.append(
                f"already complete: {run.start} steps are done, --steps asks for {options.steps}"
            )
        run._output.say("\n".join([*announcement(options, dataset, device, run._quality), *notes]))
        return run

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as held:
            held.callback(self._folder.lock().release)
            if not self.options.resume:
                self._folder.require_free()  # again: since `open`, another run may have begun
            self._start_writing(held)
            self._held = held.pop_all()
        return self

    def _start_writing(self, held: contextlib.ExitStack) -> None:
        """Begin the files and the display; `held` ends them."""
        folder, options = self._folder, self.options
        folder.create()
        folder.prune_checkpoints(self.start, options.keep_checkpoints)
        entry = session_entry(options, self.start, self._dataset, self._device, self._versions)
        folder.add_session(options.spec.to_dict(), entry)
        if options.config:
            folder.write(folder.config, options.config.encode("utf-8", "surrogateescape"))
        # A run that starts again makes its samples of step 0 again, too.
        kept = -1 if options.resume and self.restored is None else self.start
        self._records = RunRecords(folder, kept, tensorboard=options.tensorboard)
        held.callback(self._records.close)
        if self._records.last_quality is not None:
            self._display.quality(self._records.last_quality)
        self._clock_start = time.monotonic() - self._records.earlier_seconds
        held.callback(self._signals.restore)
        self._signals.install()
        held.callback(self._display.stop)
        self._display.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            # What ended the run is what is to be said, not that the same disk is still full.
            with contextlib.suppress(OSError):
                self._held.close()
            return
        with self._held:
            self._flush()
        self._finish()

    def record(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Take the METRIC_NAMES of one step: anything that `float` accepts.

        They are read every ten steps, because reading one waits for the device; until then no
        later step may overwrite them. Raises NonFiniteLossError if one is NaN or infinite.
        """
        self._stop_if(self._stop_code is not None, step)
        self._completed = step + 1
        self._pending.append((self._completed, metrics, time.monotonic() - self._clock_start))
        self._display.advance(self._completed)
        if len(self._pending) == FLUSH_EVERY:
            self._flush()

    def save_initial_samples(self, images: np.ndarray) -> None:
        """Save what untrained weights make of `sample_latents`, as `save_samples` does."""
        self._save_grid(0, images)

    def save_samples(self, step: int, images: np.ndarray) -> None:
        """Save images [64, height, width, channels] in the system's range as a grid of 8 x 8."""
        self._save_grid(step + 1, images)

    def save_checkpoint(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Save the training state after this step, by canonical name; see `write_checkpoint`.

        Then, and not before, the oldest go. Raises NonFiniteStateError, and writes nothing, if
        a number of the state is NaN or infinite; OSError, which names the file, for the disk.
        """
        # First the losses: a state that they prove broken must not become the last checkpoint,
        # and losses.csv must reach as far as the checkpoint does.
        self._flush()
        if bad := describe_non_finite(arrays):
            raise NonFiniteStateError(f"after step {step + 1}: {bad}; {self._what_remains()}")
        self._records.synchronize()
        progress = {
            "step": step + 1,
            "seed": self.options.seed,
            "batch_size": self.options.spec.batch_size,
            "dtype": self.options.dtype,
            "implementation": self.options.implementation,
            "dataset": self._dataset.description,
        }
        path = self._folder.checkpoint(step + 1)
        with naming_file(path):
            write_checkpoint(path, arrays, self.options.spec, progress=progress)
        self._folder.prune_checkpoints(step + 1, self.options.keep_checkpoints)

    def _save_grid(self, completed: int, images: np.ndarray) -> None:
        path = self._folder.sample(completed)
        with naming_file(path):
            save_png(path, image_grid(images, self.options.spec.image_range, columns=8))
        distance = self._quality.distance(images)
        self._records.add_samples(completed, path, distance)
        self._display.quality(distance)

    def _flush(self) -> None:
        """Read the pending metrics and write them; nothing of a step that is not finite."""
        pending, self._pending = self._pending, []
        for completed, metrics, seconds in pending:
            values = {name: float(metrics[name]) for name in METRIC_NAMES}
            for name, value in values.items():
                if not math.isfinite(value):
                    raise NonFiniteLossError(
                        f"{name} is {value} after step {completed}; {self._what_remains()}"
                    )
            self._records.add_losses(completed, values, seconds)
            if warning := self._watch.see(completed, values):
                print_error(warning)
        if pending:
            self._records.flush()
            self._display.losses(completed, values)

    def _what_remains(self) -> str:
        """Return what is left of a run that diverged, and what to do instead."""
        last = self._folder.latest_checkpoint(self._completed)
        kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        return f"{kept}; {what_to_try(self.options.spec)}"

    @property
    def _stop_code(self) -> int | None:
        """The exit code of a run that is to stop, or None."""
        return self._signals.exit_code or (EXIT_OUTPUT_CLOSED if self._output.closed else None)

    def _finish(self) -> None:
        """Draw the losses and say where everything is; StoppedEarly if the run is not complete."""
        folder = self._folder
        if folder.has_losses():
            with naming_file(folder.losses_plot):
                plot_losses(folder.losses, folder.losses_plot)
        rows = what_was_made(folder, self._completed, self._records.last_quality)
        self._output.say("\n".join(rows))
        if self._final_step < self.options.steps - 1:
            # With several processes the request may have come from another one.
            raise StoppedEarly(self._stop_code, self._completed, self.options)
