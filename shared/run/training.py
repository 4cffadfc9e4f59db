"""A training run without the training: its folder, its inputs, its records, its resume.

The folder is `shared.run.folder`'s. What is here knows no framework: a `fit` asks it for inputs
and hands it arrays.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import platform
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from shared.data.dataset import Batches, load_dataset
from shared.files.checkpoint import write_checkpoint
from shared.files.errors import printable
from shared.interface import METRIC_NAMES, Array, Arrays
from shared.quality.sample_quality import SampleQuality
from shared.run.console import (
    EXIT_INTERRUPTED,
    EXIT_OUTPUT_CLOSED,
    StoppedEarly,
    StopSignals,
    print_error,
    set_handlers,
)
from shared.run.display import Display, announcement, results
from shared.run.failures import (
    DiscriminatorWatch,
    NonFiniteError,
    describe_non_finite,
    naming_file,
    what_to_try,
)
from shared.run.folder import RunFolder, RunRecords, config_bytes
from shared.run.options import TrainingOptions
from shared.run.pictures import image_grid, plot_losses, save_png
from shared.run.tensorboard import require_tensorboard
from shared.spec.streams import latents

SAMPLE_COUNT = 64
FLUSH_EVERY = 10  # steps between two readings of the metrics, each of which waits for the device
VOTE_EVERY = 10  # steps between two votes of several processes, each of which is a wait


@dataclass(frozen=True)
class Processes:
    """The several processes of a run, as one of them sees them.

    `is_first`: whether this is the one that prints and writes. `any_process`: whether any of
    them passes True; all must call it at the same time.
    """

    is_first: bool
    any_process: Callable[[bool], bool]


def open_run(
    options: TrainingOptions,
    device: str,
    versions: Mapping[str, str],
    processes: Processes | None = None,
) -> TrainingRun:
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
        run = TrainingRun(options, device, versions, processes)
    except (ValueError, OSError, ImportError):
        if processes:
            processes.any_process(True)
        raise
    if processes and processes.any_process(False):
        raise ValueError("another process of the run could not start; its message says why")
    return run


class TrainingRun:
    """The inputs of every step, from nothing but the options and the data, and all that is written.

    Of several processes only the first prints, writes and takes Ctrl-C; in the others what would
    do so does nothing. The folder is expected under the same path on every host. `restored`: the
    arrays to import when resuming, or None; `initial_arrays`: the same, or those of --init-from.
    `start`: the steps completed before.

    Raises ValueError for a folder that is taken or holds nothing to resume, CheckpointError for a
    checkpoint of other options, DataError for the data, MissingFrameworkError for a tensorboard
    that is asked for and not installed.
    """

    def __init__(
        self,
        options: TrainingOptions,
        device: str,
        versions: Mapping[str, str],
        processes: Processes | None = None,
    ) -> None:
        self.options, spec = options, options.spec
        self._processes = processes
        self._writes = processes is None or processes.is_first
        self._folder = RunFolder(options.out)
        if self._writes and options.tensorboard:
            require_tensorboard()
        if self._writes and not options.resume:
            self._folder.require_free()
        notes = self._read_inputs()
        self._completed, self._final_step = self.start, options.steps - 1
        self._signals = StopSignals(alone=processes is None)
        self._display = Display(
            self.start, options.steps, spec.batch_size * spec.discriminator_steps
        )
        if not self._writes:
            return
        self._device, self._versions = device, {**versions, "numpy": np.__version__}
        self._pending: list[tuple[int, Mapping[str, Any], float]] = []
        self._quality = SampleQuality(self._dataset, spec, SAMPLE_COUNT)
        self._watch = DiscriminatorWatch(spec.loss)
        if self.start >= options.steps:
            notes.append(
                f"already complete: {self.start} steps are done, --steps asks for {options.steps}"
            )
        lines = announcement(options, self._dataset, device, self._quality)
        self._display.print(*lines, *notes)

    def _read_inputs(self) -> list[str]:
        """Read the last checkpoint, when resuming, and the data; return what is to be noted."""
        options, spec = self.options, self.options.spec
        checkpoint, notes = None, list[str]()
        if options.resume:
            checkpoint, notes = self._folder.read_last_checkpoint(options)
            if changes := self._folder.changes(options.config):
                notes.append(f"changed by the command line: {', '.join(changes)}")
        self._dataset = load_dataset(options.data, spec)
        if checkpoint and checkpoint.progress.get("dataset") != self._dataset.description:
            notes.append(f"note: it was trained on {checkpoint.progress.get('dataset')}")
        self.restored = self.initial_arrays = checkpoint.arrays if checkpoint else None
        if options.initial and not checkpoint:
            notes += options.initial.notes()
            self.initial_arrays = options.initial.arrays(spec, options.seed, options.dtype)
        self.start: int = checkpoint.progress["step"] if checkpoint else 0
        self._batches = Batches(self._dataset.images, spec, options.seed, options.dtype)
        return notes

    @property
    def sample_latents(self) -> Array:
        """The latents of every sample grid, [64, latent_dim] in the options' dtype."""
        spec, seed = self.options.spec, self.options.seed
        drawn = latents(spec, seed, 0, SAMPLE_COUNT, purpose="sample_grid")
        return drawn.astype(self.options.dtype)

    def remaining_steps(self) -> Iterator[int]:
        """Yield the index of every step still to make; end after the step that Ctrl-C met."""
        for step in range(self.start, self.options.steps):
            yield step
            if step == self._final_step:
                return

    def inputs(self, step: int) -> tuple[Array, Array]:
        """Return real images [k · batch, height, width, channels], latents [l · batch, latent_dim].

        k and l are the spec's `discriminator_steps` and `latent_batches`. Both arrays are in the
        options' dtype, and the same for a step however the run got there.
        """
        spec = self.options.spec
        drawn = latents(spec, self.options.seed, step, spec.latent_batches * spec.batch_size)
        return self._batches.images(step), drawn.astype(self.options.dtype)

    def sample_due(self, step: int) -> bool:
        """Whether to save samples: at the interval and at the last step."""
        return (step + 1) % self.options.sample_every == 0 or step == self._final_step

    def checkpoint_due(self, step: int) -> bool:
        """Whether to save a checkpoint: at the interval and at the last step."""
        return (step + 1) % self.options.checkpoint_every == 0 or step == self._final_step

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as held:
            if self._writes:
                self._begin(held)
            else:
                held.callback(set_handlers, set_handlers({signal.SIGINT: signal.SIG_IGN}))
            self._held = held.pop_all()
        return self

    def _begin(self, held: contextlib.ExitStack) -> None:
        """Begin the files and the display; `held` ends them."""
        folder, options = self._folder, self.options
        held.callback(folder.lock().release)
        if not options.resume:
            folder.require_free()  # since the run was opened, another one may have begun
        # First these two: a run that is killed here can be resumed, with the same options.
        if options.config:
            folder.write(folder.config, config_bytes(options.implementation, options.config))
        folder.add_session(options.spec.to_dict(), self._session())
        folder.create()
        folder.prune_checkpoints(self.start, options.keep_checkpoints)
        # A run that starts from the beginning makes its samples of step 0 once more, too.
        kept = -1 if options.resume and self.restored is None else self.start
        self._records = RunRecords(folder, kept, tensorboard=options.tensorboard)
        held.callback(self._records.close)
        held.enter_context(self._signals)
        self._display.start()
        held.callback(self._display.stop)
        if self._records.last_quality is not None:
            self._display.quality(self._records.last_quality)
        self._clock_start = time.monotonic() - self._records.earlier_seconds

    def _session(self) -> dict[str, Any]:
        """Return the entry of this session in run.json, as JSON data."""
        options = dataclasses.asdict(dataclasses.replace(self.options, initial=None))
        # One is beside the sessions, the others have files.
        del options["spec"], options["config"], options["initial"]
        data, out = self.options.data, self.options.out
        return {
            "start": self.start,
            "options": {**options, "data": str(data) if data else None, "out": str(out)},
            "dataset": self._dataset.description,
            "device": self._device,
            "versions": self._versions,
            "python": platform.python_version(),
            "platform": platform.platform(),
        }

    def __exit__(self, *failure: object) -> None:
        if failure[0] is not None or not self._writes:
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
        later step may overwrite them. Raises NonFiniteError if one is NaN or infinite. This step
        becomes the last one if this process, or any of several, was asked to stop.
        """
        stop = self._stop_code is not None
        if self._processes:
            stop = (step + 1) % VOTE_EVERY == 0 and self._processes.any_process(stop)
        if stop:
            self._final_step = step
        if not self._writes:
            return
        self._completed = step + 1
        self._pending.append((self._completed, metrics, time.monotonic() - self._clock_start))
        self._display.advance(self._completed)
        if len(self._pending) == FLUSH_EVERY:
            self._flush()

    def save_initial_samples(self, images: Array) -> None:
        """Save what untrained weights make of `sample_latents`, as `save_samples` does."""
        self.save_samples(-1, images)

    def save_samples(self, step: int, images: Array) -> None:
        """Save images [64, height, width, channels] in the system's range as a grid of 8 x 8."""
        if not self._writes:
            return
        path = self._folder.sample(step + 1)
        with naming_file(path):
            save_png(path, image_grid(images, self.options.spec.image_range, columns=8))
        distance = self._quality.distance(images)
        self._records.add_samples(step + 1, path, distance)
        self._display.quality(distance)

    def save_checkpoint(self, step: int, arrays: Arrays) -> None:
        """Save the training state after this step, by canonical name; see `write_checkpoint`.

        Then, and not before, the oldest go. Raises NonFiniteError, and writes nothing, if
        a number of the state is NaN or infinite; OSError, which names the file, for the disk.
        """
        if not self._writes:
            return
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
        return self._signals.exit_code or (EXIT_OUTPUT_CLOSED if self._display.closed else None)

    def _finish(self) -> None:
        """Draw the losses and list the files; StoppedEarly if the run is not complete."""
        folder, options = self._folder, self.options
        if folder.has_losses():
            with naming_file(folder.losses_plot):
                plot_losses(folder.losses, folder.losses_plot)
        self._display.print(*results(folder, self._completed, self._records.last_quality))
        if self._final_step < options.steps - 1:
            # With several processes the request may have come from another one.
            raise StoppedEarly(
                self._stop_code or EXIT_INTERRUPTED,
                f"after step {self._completed} of {options.steps}; go on with "
                f"--resume --out {shlex.quote(printable(options.out))}",
            )
