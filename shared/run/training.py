"""A training run without the training: its folder, its inputs, its records, its resume.

The folder is `shared.run.folder`'s. What is here knows no framework: a `fit` asks it for inputs
and hands it arrays.
"""

from __future__ import annotations

import contextlib
import math
import shlex
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from shared.files.checkpoint import write_checkpoint
from shared.files.errors import printable
from shared.interface import METRIC_NAMES
from shared.quality.sample_quality import SampleQuality
from shared.run.announcement import announcement, results, session_entry
from shared.run.config import config_bytes
from shared.run.console import (
    EXIT_INTERRUPTED,
    EXIT_OUTPUT_CLOSED,
    Output,
    StoppedEarly,
    StopSignals,
    print_error,
)
from shared.run.failures import (
    DiscriminatorWatch,
    NonFiniteError,
    describe_non_finite,
    naming_file,
    what_to_try,
)
from shared.run.folder import RunFolder
from shared.run.options import TrainingOptions
from shared.run.pictures import image_grid, plot_losses, save_png
from shared.run.process import SAMPLE_COUNT, Processes, RunProcess
from shared.run.progress import ProgressDisplay
from shared.run.records import RunRecords
from shared.run.tensorboard import require_tensorboard

FLUSH_EVERY = 10  # steps between two readings of the metrics, each of which waits for the device


def open_run(
    options: TrainingOptions,
    device: str,
    versions: Mapping[str, str],
    processes: Processes | None = None,
) -> RunProcess:
    """Open a run: check the folder, read the last checkpoint when resuming, load the data.

    `device` is the framework's name of the one that it runs on, `versions` are those of its
    packages; `processes` is given where several train this run. Nothing is written yet. Raises
    what `TrainingRun` raises; if one of several processes fails, the others raise ValueError.

    >>> run = open_run(options, device="cpu", versions={"torch": torch.__version__})
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
    end of the `with` a run that was stopped so raises StoppedEarly, a KeyboardInterrupt, whose
    message names the command that goes on.
    """
    try:
        if processes is None or processes.is_first:
            run: RunProcess = TrainingRun(options, device, versions, processes)
        else:
            run = RunProcess(options, processes)
    except (ValueError, OSError, ImportError):
        if processes:
            processes.any_process(True)
        raise
    if processes and processes.any_process(False):
        raise ValueError("another process of the run could not start; its message says why")
    return run


class TrainingRun(RunProcess):
    """The process that prints and writes.

    Raises what RunProcess raises, ValueError for a folder that is taken, MissingFrameworkError for
    a tensorboard that is asked for and not installed.
    """

    def __init__(
        self,
        options: TrainingOptions,
        device: str,
        versions: Mapping[str, str],
        processes: Processes | None = None,
    ) -> None:
        if options.tensorboard:
            require_tensorboard()
        self._folder = RunFolder(options.out)
        if not options.resume:
            self._folder.require_free()
        super().__init__(options, processes)
        spec = options.spec
        self._completed = self.start
        self._signals = StopSignals(alone=processes is None)
        self._pending: list[tuple[int, Mapping[str, Any], float]] = []
        self._quality = SampleQuality(self._dataset, spec, SAMPLE_COUNT)
        self._watch = DiscriminatorWatch(spec.loss)
        self._output = Output()
        self._session = session_entry(options, self.start, self._dataset, device, versions)
        if self.start >= options.steps:
            self._notes.append(
                f"already complete: {self.start} steps are done, --steps asks for {options.steps}"
            )
        lines = announcement(options, self._dataset, device, self._quality)
        self._output.print("\n".join([*lines, *self._notes]))

    def _begin(self, held: contextlib.ExitStack) -> None:
        """Begin the files and the display; `held` ends them."""
        folder, options = self._folder, self.options
        held.callback(folder.lock().release)
        if not options.resume:
            folder.require_free()  # since the run was opened, another one may have begun
        folder.create()
        folder.prune_checkpoints(self.start, options.keep_checkpoints)
        folder.add_session(options.spec.to_dict(), self._session)
        if options.config:
            folder.write(folder.config, config_bytes(options.implementation, options.config))
        # A run that starts from the beginning makes its samples of step 0 once more, too.
        kept = -1 if options.resume and self.restored is None else self.start
        self._records = RunRecords(folder, kept, tensorboard=options.tensorboard)
        held.callback(self._records.close)
        held.callback(self._signals.restore)
        self._signals.install()
        images_per_step = options.spec.batch_size * options.spec.discriminator_steps
        self._display = ProgressDisplay(self.start, options.steps, images_per_step, self._output)
        held.callback(self._display.stop)
        if self._records.last_quality is not None:
            self._display.quality(self._records.last_quality)
        self._clock_start = time.monotonic() - self._records.earlier_seconds

    def __exit__(self, *failure: object) -> None:
        if failure[0] is not None:
            # What ended the run is what is to be reported, not that the same disk is still full.
            with contextlib.suppress(OSError):
                self._held.close()
            return
        with self._held:
            self._flush()
        self._finish()

    def record(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Take the METRIC_NAMES of one step: anything that `float` accepts.

        They are read every ten steps, because reading one waits for the device; until then no
        later step may overwrite them. Raises NonFiniteError if one is NaN or infinite.
        """
        self._stop_if(self._stop_code is not None, step)
        self._completed = step + 1
        self._pending.append((self._completed, metrics, time.monotonic() - self._clock_start))
        self._display.advance(self._completed)
        if len(self._pending) == FLUSH_EVERY:
            self._flush()

    def save_samples(self, step: int, images: np.ndarray) -> None:
        """Save images [64, height, width, channels] in the system's range as a grid of 8 x 8."""
        path = self._folder.sample(step + 1)
        with naming_file(path):
            save_png(path, image_grid(images, self.options.spec.image_range, columns=8))
        distance = self._quality.distance(images)
        self._records.add_samples(step + 1, path, distance)
        self._display.quality(distance)

    def save_checkpoint(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Save the training state after this step, by canonical name; see `write_checkpoint`.

        Then, and not before, the oldest go. Raises NonFiniteError, and writes nothing, if
        a number of the state is NaN or infinite; OSError, which names the file, for the disk.
        """
        # First the losses: a state that they prove broken must not become the last checkpoint,
        # and losses.csv must reach as far as the checkpoint does.
        self._flush()
        if bad := describe_non_finite(arrays):
            raise NonFiniteError(f"after step {step + 1}: {bad}; {self._what_remains()}")
        self._records.synchronize()
        options = self.options
        progress = {
            "step": step + 1,
            "seed": options.seed,
            "batch_size": options.spec.batch_size,
            "dtype": options.dtype,
            "implementation": options.implementation,
            "dataset": self._dataset.description,
        }
        path = self._folder.checkpoint(step + 1)
        with naming_file(path):
            write_checkpoint(path, arrays, options.spec, progress=progress)
        self._folder.prune_checkpoints(step + 1, options.keep_checkpoints)

    def _flush(self) -> None:
        """Read the pending metrics and write them; nothing of a step that is not finite."""
        pending, self._pending = self._pending, []
        for completed, metrics, seconds in pending:
            values = {name: float(metrics[name]) for name in METRIC_NAMES}
            for name, value in values.items():
                if not math.isfinite(value):
                    raise NonFiniteError(
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
        """Draw the losses and list the files; StoppedEarly if the run is not complete."""
        folder, options = self._folder, self.options
        if folder.has_losses():
            with naming_file(folder.losses_plot):
                plot_losses(folder.losses, folder.losses_plot)
        self._output.print("\n".join(results(folder, self._completed, self._records.last_quality)))
        if self._final_step < options.steps - 1:
            # With several processes the request may have come from another one.
            raise StoppedEarly(
                self._stop_code or EXIT_INTERRUPTED,
                f"after step {self._completed} of {options.steps}; go on with the same options and "
                f"--resume --out {shlex.quote(printable(options.out))}",
            )
