"""What a run prints: what it is going to do, its progress, and where its files are.

On a terminal the progress is a bar, in a log, a pipe or a CI plain lines.
"""

import math
import sys
import time
from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console
from rich.progress import TimeRemainingColumn

from shared.data.dataset import ImageDataset
from shared.files.errors import printable
from shared.quality.metrics import SampleQuality
from shared.run.console import SECONDS_BETWEEN_LINES, bar_on, silence
from shared.run.folder import RunFolder, newest_first
from shared.run.options import TrainingOptions
from shared.spec import NETWORKS, SYSTEMS

ONE_UPDATE = "--d-steps 1, --generator-batch same-images"  # what needs no line
SKIPPED_SHOWN = 3  # files of the data set that were skipped and are named


class Display:
    """Steps, real images per second, losses, quality and remaining time of one run.

    `closed` turns true when stdout cannot be written any more: `head` has gone, the disk is full.
    """

    def __init__(self, start: int, steps: int, images_per_step: int) -> None:
        self.closed = False
        self._steps, self._images_per_step = steps, images_per_step
        self._bar = bar_on(Console(), TimeRemainingColumn)
        self.stop = self._bar.stop  # which leaves the bar as it is
        self._completed, self._losses_time, self._line_time = start, 0.0, 0.0

    def print(self, *lines: str) -> None:
        """Print lines, at once; nothing at all once stdout is closed."""
        if self.closed:
            return
        try:
            print(*lines, sep="\n", flush=True)
        except OSError:
            self.closed = True
            silence(sys.stdout)

    def start(self) -> None:
        """Show the bar."""
        # The first step of a compiled framework can take a minute, in which nothing moves.
        done = min(self._completed, self._steps)
        self._task = self._bar.add_task("first steps ...", total=self._steps, completed=done)
        self._losses_time = self._line_time = time.monotonic()
        self._bar.start()

    def advance(self, completed: int) -> None:
        """Move the bar to so many completed steps."""
        self._bar.update(self._task, completed=completed)

    def losses(self, completed: int, metrics: Mapping[str, float], swd: float | None) -> None:
        """Show the losses after so many steps, the last distance, the speed since the last call."""
        now = time.monotonic()
        images = (completed - self._completed) * self._images_per_step
        rate = images / max(now - self._losses_time, 1e-9)
        self._completed, self._losses_time = completed, now
        losses = f"D {metrics['discriminator_loss']:.3f}  G {metrics['generator_loss']:.3f}"
        # At the last step the distance is that of the grid before, which is soon replaced.
        quality = _in_words(swd) if completed < self._steps else ""
        text = "  ".join(filter(None, (losses, quality, f"{rate:,.0f} img/s")))
        self._bar.update(self._task, description=text)
        due = now - self._line_time >= SECONDS_BETWEEN_LINES or completed == self._steps
        if due and self._bar.disable:
            self._line_time = now
            left = self._bar.tasks[0].time_remaining
            remaining = f"  {timedelta(seconds=left)} left" if left else ""
            self.print(f"step {completed}/{self._steps}  {text}{remaining}")


def announcement(
    options: TrainingOptions, dataset: ImageDataset, device: str, quality: SampleQuality
) -> list[str]:
    """Return the lines that describe what is going to happen, with every default that matters."""
    spec = options.spec
    full = SYSTEMS[spec.name].width if spec.name in SYSTEMS else spec.width
    narrowed = f" (narrowed from {full})" if spec.width < full else ""
    rates = {name: getattr(spec, f"{name}_optimizer").learning_rate for name in NETWORKS}
    skipped = [f"{len(dataset.skipped):,} files"] if dataset.skipped else []
    skipped += [f"  {line}" for line in dataset.skipped[:SKIPPED_SHOWN]]
    skipped += ["  ..."] if len(dataset.skipped) > SKIPPED_SHOWN else []
    rows_each = spec.batch_size // options.devices
    devices = f"{options.devices}, each with {rows_each} images, {options.batch_norm} batch norm"
    floor = quality.distance_of_real_images()  # how far down the distance can go
    reached = f" (other real ones: {floor:.0f})" if math.isfinite(floor) else ""
    learns_from = spec.generator_batch.replace("_", "-")
    each_step = f"--d-steps {spec.discriminator_steps}, --generator-batch {learns_from}"
    products = "" if options.precision == "fp32" else f" with products in {options.precision}"
    compared = f"sliced Wasserstein distance of {quality.count} samples to {quality.count} real"
    return _table(
        ("system", f"{spec.name}, loss {spec.loss}, width {spec.width}{narrowed}"),
        ("parameters", ", ".join(f"{name} {spec.parameter_count(name):,}" for name in NETWORKS)),
        ("data", dataset.description),
        *(("" if i else "images", note) for i, note in enumerate(dataset.notes)),
        *(("" if i else "skipped", line) for i, line in enumerate(skipped)),
        ("training", f"{options.steps} steps of batch {spec.batch_size}, seed {options.seed}"),
        ("each step", "" if each_step == ONE_UPDATE else each_step),
        ("learning rates", ", ".join(f"{name} {rate:g}" for name, rate in rates.items())),
        ("framework", f"{options.implementation}, {options.dtype}{products}, on {device}"),
        ("devices", devices if options.devices > 1 else ""),
        ("out", printable(options.out)),
        ("quality", f"SWD, {compared} images{reached}; rough"),
    )


def results(folder: RunFolder, completed: int, quality: float | None) -> list[str]:
    """Return where everything is after so many steps, and the last distance, if there is one."""
    return _table(
        ("samples", next(iter(newest_first(folder.samples, completed)), "")),
        ("checkpoint", next(iter(newest_first(folder.checkpoints, completed)), "")),
        ("losses", folder.losses_plot if folder.losses_plot.exists() else ""),
        ("quality", _in_words(quality)),
    )


def _in_words(swd: float | None) -> str:
    return "" if swd is None or math.isnan(swd) else f"SWD {swd:.0f}"


def _table(*rows: tuple[str, object]) -> list[str]:
    return [f"{name:<15}{value}" for name, value in rows if value]
