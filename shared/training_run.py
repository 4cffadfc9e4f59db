"""A training run without the training: its folder, its inputs, its records, its way back.

The folder is `shared.run_folder`'s. What is here knows no framework: a `fit` asks it for inputs
and hands it arrays.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import platform
import signal
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np

from shared.checkpoint_format import Checkpoint, write_checkpoint
from shared.command_line import TrainingOptions
from shared.data import ImageDataset, load_dataset
from shared.interface import METRIC_NAMES
from shared.pictures import image_grid, plot_losses, save_png
from shared.progress import ProgressDisplay
from shared.run_folder import RunFolder
from shared.run_inputs import SAMPLE_COUNT, Agree, RunInputs
from shared.run_records import RunRecords
from shared.sample_quality import SampleQuality
from shared.spec import NETWORKS, SYSTEMS, SystemSpec
from shared.tensorboard import require_tensorboard

FLUSH_EVERY = 10  # steps between two readings of the metrics, each of which waits for the device
SKIPPED_SHOWN = 3  # files of the data set that were skipped and are named


class NonFiniteLossError(ValueError):
    """A loss became NaN or infinite; the last checkpoint is older than that and still good."""


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
    end of the `with` an interrupted run raises KeyboardInterrupt, which says how to go on.
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
        spec = options.spec
        self._device = device
        self._versions = dict(versions)
        self._completed = self.start
        self._interrupted = False
        self._pending: list[tuple[int, Mapping[str, Any], float]] = []
        self._quality = SampleQuality(dataset, spec, SAMPLE_COUNT)
        images_per_step = spec.batch_size * spec.discriminator_steps
        self._display = ProgressDisplay(self.start, options.steps, images_per_step)

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
        lines = [*_announcement(options, dataset, device), _quality_row(run._quality), *notes]
        print("\n".join(lines), flush=True)
        return run

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as held:
            held.callback(self._folder.lock().release)
            if not self.options.resume:
                self._folder.require_free()  # again: since `open`, another run may have begun
            self._start_writing()
            self._held = held.pop_all()
        return self

    def _start_writing(self) -> None:
        self._folder.create()
        self._write_session()
        tensorboard = self.options.tensorboard
        self._records = RunRecords(self._folder, self.start, tensorboard=tensorboard)
        if self._records.last_quality is not None:
            self._display.quality(self._records.last_quality)
        self._clock_start = time.monotonic() - self._records.earlier_seconds
        # Only the main thread may install a handler.
        self._handles_interrupt = threading.current_thread() is threading.main_thread()
        if self._handles_interrupt:
            self._previous_handler = signal.signal(signal.SIGINT, self._on_interrupt)
        self._display.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._display.stop()
            self._records.close()
            if self._handles_interrupt:
                signal.signal(signal.SIGINT, self._previous_handler)
            self._held.close()
        if kind is None:
            self._finish()

    def record(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Take the METRIC_NAMES of one step: anything that `float` accepts.

        They are read every ten steps, because reading one waits for the device; until then no
        later step may overwrite them. Raises NonFiniteLossError if one is NaN or infinite.
        """
        self._stop_if(self._interrupted, step)
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
        """Save the training state after this step, by canonical name; see `write_checkpoint`."""
        # First the losses: a state that they prove broken must not become the last checkpoint,
        # and losses.csv must reach as far as the checkpoint does.
        self._flush()
        progress = {
            "step": step + 1,
            "seed": self.options.seed,
            "batch_size": self.options.spec.batch_size,
            "dtype": self.options.dtype,
            "implementation": self.options.implementation,
            "dataset": self._dataset.description,
        }
        path = self._folder.checkpoint(step + 1)
        write_checkpoint(path, arrays, self.options.spec, progress=progress)

    def _save_grid(self, completed: int, images: np.ndarray) -> None:
        grid = image_grid(images, self.options.spec.image_range, columns=8)
        save_png(self._folder.sample(completed), grid)
        distance = self._quality.distance(images)
        self._records.add_samples(completed, self._folder.sample(completed), distance)
        self._display.quality(distance)

    def _flush(self) -> None:
        """Read the pending metrics and write them; nothing of a step that is not finite."""
        pending, self._pending = self._pending, []
        for completed, metrics, seconds in pending:
            values = {name: float(metrics[name]) for name in METRIC_NAMES}
            for name, value in values.items():
                if not math.isfinite(value):
                    raise NonFiniteLossError(
                        f"{name} is {value} after step {completed}; whatever checkpoint is in "
                        f"{self._folder.checkpoints} is from before that"
                    )
            self._records.add_losses(completed, values, seconds)
        if pending:
            self._records.flush()
            self._display.losses(completed, values)

    def _on_interrupt(self, signal_number: int, frame: object) -> None:
        self._interrupted = True
        signal.signal(signal.SIGINT, self._previous_handler)  # a second Ctrl-C stops at once
        # Not print: it could be what was interrupted, and it may not be entered twice.
        os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")

    def _write_session(self) -> None:
        options = dataclasses.asdict(self.options)
        options.update(
            data=str(self.options.data) if self.options.data else None, out=str(self.options.out)
        )
        spec = options.pop("spec")
        session = {
            "start": self.start,
            "options": options,
            "dataset": self._dataset.description,
            "device": self._device,
            "versions": {**self._versions, "numpy": np.__version__},
            "python": platform.python_version(),
            "platform": platform.platform(),
        }
        self._folder.add_session(spec, session)

    def _finish(self) -> None:
        """Draw the losses and say where everything is; KeyboardInterrupt if Ctrl-C ended it."""
        folder = self._folder
        files = {
            "samples": folder.latest_sample(self._completed),
            "checkpoint": folder.latest_checkpoint(self._completed),
        }
        if folder.has_losses():
            plot_losses(folder.losses, folder.losses_plot)
            files["losses"] = folder.losses_plot
        rows = [f"{what:<15}{path}" for what, path in files.items() if path]
        if self._records.last_quality is not None:
            rows.append(f"{'quality':<15}SWD {self._records.last_quality:.0f}")
        print("\n".join(rows), flush=True)
        if self._final_step < self.options.steps - 1:
            raise KeyboardInterrupt(
                f"interrupted after step {self._completed} of {self.options.steps}; "
                f"go on with the same options and --resume --out {folder.path}"
            )


def _announcement(options: TrainingOptions, dataset: ImageDataset, device: str) -> list[str]:
    """Return the lines that say what is going to happen, with every default that matters."""
    spec = options.spec
    full = SYSTEMS[spec.name].width if spec.name in SYSTEMS else spec.width
    narrowed = f" (narrowed from {full})" if spec.width < full else ""
    parameters = ", ".join(f"{name} {spec.parameter_count(name):,}" for name in NETWORKS)
    rates = ", ".join(
        f"{name} {adam.learning_rate:g}"
        for name, adam in zip(
            NETWORKS, (spec.generator_optimizer, spec.discriminator_optimizer), strict=True
        )
    )
    steps = f"{options.steps} steps of batch {spec.batch_size}, seed {options.seed}"
    rows = [
        ("system", f"{spec.name}, loss {spec.loss}, width {spec.width}{narrowed}"),
        ("parameters", parameters),
        ("data", dataset.description),
        *_skipped_rows(dataset),
        ("training", steps),
        *_step_rows(spec),
        ("learning rates", rates),
        ("framework", f"{options.implementation}, {options.dtype}, on {device}"),
        *_devices_rows(options),
        ("out", str(options.out)),
    ]
    return [f"{name:<15}{value}" for name, value in rows]


def _skipped_rows(dataset: ImageDataset) -> list[tuple[str, str]]:
    """Return how many files were skipped, and the first of them with the reason."""
    if not dataset.skipped:
        return []
    shown = [*dataset.skipped[:SKIPPED_SHOWN]]
    if len(dataset.skipped) > SKIPPED_SHOWN:
        shown.append("…")
    return [
        ("skipped", f"{len(dataset.skipped):,} files"),
        *(("", f"  {line}") for line in shown),
    ]


def _devices_rows(options: TrainingOptions) -> list[tuple[str, str]]:
    """Return how a batch is divided, if it is."""
    if options.devices == 1:
        return []
    part = options.spec.batch_size // options.devices
    return [
        ("devices", f"{options.devices}, each with {part} images, {options.batch_norm} batch norm")
    ]


def _step_rows(spec: SystemSpec) -> list[tuple[str, str]]:
    """Return one step in words, unless it is one update of each network on the same images."""
    k = spec.discriminator_steps
    if (k, spec.generator_batch) == (1, "same_images"):
        return []
    first = "one discriminator update" if k == 1 else f"{k} discriminator updates on fresh batches"
    source = {
        "same_images": "the last of their fake images",
        "same_latents": "images made anew from the same latents",
        "new_latents": "images from new latents",
    }[spec.generator_batch]
    return [("each step", f"{first}, then the generator on {source}")]


def _quality_row(quality: SampleQuality) -> str:
    """Return the line that says what SWD is and how far down it can go."""
    count, floor = quality.count, quality.distance_of_real_images()
    reached = f" (other real ones: {floor:.0f})" if math.isfinite(floor) else ""
    return (
        f"{'quality':<15}SWD, sliced Wasserstein distance of {count} samples to {count} real "
        f"images{reached}; rough"
    )
