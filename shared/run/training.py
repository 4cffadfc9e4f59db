"""A training run without the training, which a `fit` adds: its inputs, its records, its resume."""

from __future__ import annotations

import contextlib
import math
import platform
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from shared.data.dataset import Batches, load_dataset, to_pixels
from shared.files.checkpoint import write_checkpoint
from shared.files.errors import printable
from shared.interface import METRIC_NAMES, Array, Arrays, require_framework
from shared.quality.metrics import SampleQuality
from shared.run import console
from shared.run.display import Display, announcement, results
from shared.run.folder import RunFolder, RunRecords, describe_non_finite, naming_file, newest_first
from shared.run.options import TrainingOptions
from shared.run.pictures import save_png, tiles
from shared.spec import NETWORKS
from shared.spec.streams import latents

SAMPLE_COUNT = 64
FLUSH_EVERY = 10  # steps between two readings of the metrics, each of which waits for the device
VOTE_EVERY = 10  # steps between two votes of several processes, each of which is a wait

# By bce, right and on average 99.5 % sure of every image. Measured: dcgan64 of width 16 with
# --learning-rate 2e-4, where it wins (README), is below for 292 of 450 steps; 300 steps of the
# default dcgan64 and the default runs of conv28 and mlp28 never are (0.024, 0.93 and 0.069 at
# the least).
WON_BELOW = 0.01
CLAMP = 100.0  # what bce_probs makes of log(0), docs/losses.md
STEPS_IN_A_ROW = 100

_WON = (
    f"warning: the discriminator has won: its loss was under {WON_BELOW:g} at every step from "
    "{first} to {last}, so the generator learns next to nothing from it; start again without "
    "--learning-rate, whose default suits the width, with a larger --width{other} or more images"
)
_CLAMPED = (
    f"warning: the discriminator is stuck: its loss was at {CLAMP:g}, which stands for log(0), at "
    "every step from {first} to {last}, where it has no slope to learn by; start again with a "
    "lower --learning-rate, or with --loss bce, which has no such ceiling"
)


class Processes(NamedTuple):
    """A run's processes; all call `any_process` at once, to know if one of them passes True."""

    is_first: bool
    any_process: Callable[[bool], bool]


class TrainingRun:
    """The inputs of every step, from nothing but the options and the data, and all that is written.

    Making one checks the folder, reads the last checkpoint when resuming and loads the data; it
    writes nothing yet. `device` is the framework's name of the one that it runs on, `versions` are
    those of its packages. Of several `processes`, under one path on every host, only the first
    prints, writes and takes Ctrl-C; if one of them fails, the others raise ValueError.

    `fit` in every implementation shows its use in a `with`, at whose end a run that was stopped
    raises StoppedEarly. `record` comes first of all: there Ctrl-C makes a step the last one.

    `restored`: the arrays to import when resuming, or None; `initial_arrays`: the same, or those of
    --init-from. `start`: the steps completed before. Raises ValueError for the folder,
    InputError for its checkpoint or the data, MissingFrameworkError for tensorboard.
    """

    def __init__(
        self,
        options: TrainingOptions,
        device: str,
        versions: Mapping[str, str],
        processes: Processes | None = None,
    ) -> None:
        self.options, self._processes = options, processes
        self._writes = processes is None or processes.is_first
        self._pending: list[tuple[int, Mapping[str, Any], float]] = []
        self._folder = RunFolder(options.out)
        self._device, self._versions = device, {**versions, "numpy": np.__version__}
        try:
            self._open()
        except (ValueError, OSError, ImportError):
            if processes:
                processes.any_process(True)
            raise
        if processes and processes.any_process(False):
            raise ValueError(
                "another process of the run could not start; its own message has the reason"
            )

    def _open(self) -> None:
        """Read the inputs, and print what is going to happen."""
        options, spec = self.options, self.options.spec
        if self._writes and options.tensorboard:
            require_framework("tensorboard")
        if self._writes and not options.resume:
            self._folder.require_free()
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
        self._completed, self._final_step = self.start, options.steps - 1
        self._signals = console.StopSignals(alone=self._processes is None)
        images_per_step = spec.batch_size * spec.discriminator_steps
        self._display = Display(self.start, options.steps, images_per_step)
        if not self._writes:
            return
        self._quality = SampleQuality(self._dataset, spec, SAMPLE_COUNT)
        self._watch = DiscriminatorWatch(spec.loss)
        if self.start >= options.steps:
            done = f"already complete: {self.start} steps are done"
            notes.append(f"{done}, --steps asks for {options.steps}")
        lines = announcement(options, self._dataset, self._device, self._quality)
        self._display.print(*lines, *notes)

    @property
    def sample_latents(self) -> Array:
        """The latents of every sample grid, [64, latent_dim] in the options' dtype."""
        options = self.options
        drawn = latents(options.spec, options.seed, 0, SAMPLE_COUNT, purpose="sample_grid")
        return drawn.astype(self.options.dtype)

    def remaining_steps(self) -> Iterator[int]:
        """Yield the index of every step still to make; end after the step that Ctrl-C met."""
        for step in range(self.start, self.options.steps):
            yield step
            if step == self._final_step:
                return

    def inputs(self, step: int) -> tuple[Array, Array]:
        """Return images [k · batch, height, width, channels], latents [l · batch, latent_dim]."""
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
                previous = console.set_handlers({signal.SIGINT: signal.SIG_IGN})
                held.callback(console.set_handlers, previous)
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
            folder.write_config(options.implementation, options.config)
        # One is beside the sessions, the others have files.
        own = {n: v for n, v in vars(options).items() if n not in ("spec", "config", "initial")}
        own["data"] = options.data and options.data.absolute()  # as config.toml has it
        session = {"start": self.start, "options": own, "dataset": self._dataset.description}
        session |= {"device": self._device, "versions": self._versions}
        session |= {"python": platform.python_version(), "platform": platform.platform()}
        folder.add_session(options.spec.to_dict(), session)
        folder.create()
        folder.prune_checkpoints(self.start, options.keep_checkpoints)
        # A run that starts from the beginning makes its samples of step 0 once more, too.
        kept = -1 if options.resume and self.restored is None else self.start
        self._records = RunRecords(folder, kept, tensorboard=options.tensorboard)
        held.callback(self._records.close)
        held.enter_context(self._signals)
        self._display.start()
        held.callback(self._display.stop)
        self._clock_start = time.monotonic() - self._records.earlier_seconds

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
        """Take the METRIC_NAMES of one step: anything that `float` accepts, read ten steps later.

        No later step may overwrite them. Raises NonFiniteError if one is NaN or infinite. This step
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

    def save_samples(self, step: int, images: Array) -> None:
        """Save images [64, height, width, channels] in the system's range as a grid of 8 x 8.

        They are made of `sample_latents`; those of untrained weights are of step -1.
        """
        if not self._writes:
            return
        path = self._folder.sample(step + 1)
        with naming_file(path):
            save_png(path, tiles(to_pixels(images, self.options.spec.image_range)))
        self._records.add_samples(step + 1, path, self._quality.distance(images))

    def save_checkpoint(self, step: int, arrays: Arrays) -> None:
        """Save the state by canonical name; NonFiniteError for NaN or infinity, OSError by name."""
        if not self._writes:
            return
        # First the losses: a state that they prove broken must not become the last checkpoint,
        # and losses.csv must reach as far as the checkpoint does.
        self._flush()
        if bad := describe_non_finite(arrays):
            raise NonFiniteError(f"after step {step + 1}: {bad}; {self._what_remains()}")
        self._records.synchronize()
        options, spec = self.options, self.options.spec
        progress = {n: getattr(options, n) for n in ("seed", "dtype", "implementation")}
        progress |= {"step": step + 1, "batch_size": spec.batch_size}
        progress["dataset"] = self._dataset.description
        path = self._folder.checkpoint(step + 1)
        with naming_file(path):
            write_checkpoint(path, arrays, spec, progress=progress)
        self._folder.prune_checkpoints(step + 1, options.keep_checkpoints)

    def _flush(self) -> None:
        """Read the pending metrics and write them; nothing of a step that is not finite."""
        pending, self._pending = self._pending, []
        for completed, metrics, seconds in pending:
            values = {name: float(metrics[name]) for name in METRIC_NAMES}
            if bad := [
                f"{n} is {value}" for n, value in values.items() if not math.isfinite(value)
            ]:
                raise NonFiniteError(f"{bad[0]} after step {completed}; {self._what_remains()}")
            self._records.add_losses(completed, values, seconds)
            if warning := self._watch.see(completed, values):
                console.print_error(warning)
        if pending:
            self._records.flush()
            self._display.losses(completed, values, self._records.last_quality)

    def _what_remains(self) -> str:
        """Return what is left of a run that diverged, and what to do instead."""
        last = newest_first(self._folder.checkpoints, self._completed)
        kept = f"the last good checkpoint is {last[0]}" if last else "there is no checkpoint yet"
        spec = self.options.spec
        rates = {getattr(spec, f"{name}_optimizer").learning_rate for name in NETWORKS}
        shown = " and ".join(f"{rate:g}" for rate in sorted(rates))
        other = "" if spec.loss == "lsgan" else ", or --loss lsgan"
        return f"{kept}; start a new run with a lower --learning-rate (it was {shown}){other}"

    @property
    def _stop_code(self) -> int | None:
        """The exit code of a run that is to stop, or None."""
        closed = console.EXIT_OUTPUT_CLOSED if self._display.closed else None
        return self._signals.exit_code or closed

    def _finish(self) -> None:
        """Draw the losses and list the files; StoppedEarly if the run is not complete."""
        folder, options = self._folder, self.options
        folder.plot_losses()
        self._display.print(*results(folder, self._completed, self._records.last_quality))
        if self._final_step < options.steps - 1:
            resume = f"--resume --out {shlex.quote(printable(options.out))}"
            where = f"after step {self._completed} of {options.steps}; go on with {resume}"
            # With several processes the request may have come from another one.
            raise console.StoppedEarly(self._stop_code or console.EXIT_INTERRUPTED, where)


class NonFiniteError(ValueError):
    """A loss, weight, statistic or moment is NaN or infinite; no checkpoint of it is written."""


class DiscriminatorWatch:
    """Counts the steps in a row in which the discriminator's loss is pinned; warns once."""

    def __init__(self, loss: str) -> None:
        self._loss, self._warned, self._won, self._clamped = loss, False, 0, 0

    def see(self, completed: int, values: Mapping[str, float]) -> str | None:
        """Take the METRIC_NAMES of the next step; return a warning when it is time for it."""
        halves = (values["discriminator_loss_real"], values["discriminator_loss_fake"])
        # A mean of a hundred times 100 need not be 100 to the last bit.
        clamped = self._loss == "bce_probs" and max(halves) > 0.999 * CLAMP
        self._won = self._won + 1 if values["discriminator_loss"] < WON_BELOW else 0
        self._clamped = self._clamped + 1 if clamped else 0
        if self._warned or max(self._won, self._clamped) < STEPS_IN_A_ROW:
            return None
        self._warned = True
        text = _WON if self._won >= STEPS_IN_A_ROW else _CLAMPED
        other = "" if self._loss == "lsgan" else ", with --loss lsgan"
        return text.format(first=completed - STEPS_IN_A_ROW + 1, last=completed, other=other)
