"""The progress of a run: a bar on a terminal, plain lines in a log, a pipe or a CI."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shared.run.console import Output

SECONDS_BETWEEN_LINES = 10.0


class ProgressDisplay:
    """Steps, real images per second, losses, quality and remaining time of one run, from now on.

    On a terminal a bar; otherwise, in a log, a pipe, a terminal that cannot move its cursor or
    where a CI is known to run, a line every ten seconds and at the end.
    """

    def __init__(self, start: int, steps: int, images_per_step: int, output: Output) -> None:
        self._output = output
        self._steps, self._images_per_step = steps, images_per_step
        self._quality = ""
        columns = (
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        console = Console()
        # FORCE_COLOR, which a CI sets, makes rich take a file for a terminal.
        has_bar = console.is_interactive and console.file.isatty() and not os.environ.get("CI")
        self._bar = Progress(*columns, console=console, disable=not has_bar)
        # The first step of a compiled framework can take a minute, in which nothing moves.
        self._task = self._bar.add_task("first steps ...", total=steps, completed=min(start, steps))
        self._losses_at, self._losses_time = start, time.monotonic()
        self._line_time = self._losses_time
        self._bar.start()

    def stop(self) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def advance(self, completed: int) -> None:
        """Move the bar to so many completed steps."""
        self._bar.update(self._task, completed=completed)

    def quality(self, swd: float) -> None:
        """Show this sliced Wasserstein distance from the next losses on."""
        self._quality = f"SWD {swd:.0f}  "

    def losses(self, completed: int, metrics: Mapping[str, float]) -> None:
        """Show the losses after so many steps, and the speed since the last call."""
        now = time.monotonic()
        images = (completed - self._losses_at) * self._images_per_step
        rate = images / max(now - self._losses_time, 1e-9)
        self._losses_at, self._losses_time = completed, now
        text = (
            f"D {metrics['discriminator_loss']:.3f}  G {metrics['generator_loss']:.3f}  "
            f"{self._quality}{rate:,.0f} img/s"
        )
        self._bar.update(self._task, description=text)
        due = now - self._line_time >= SECONDS_BETWEEN_LINES or completed == self._steps
        if due and self._bar.disable:
            self._line_time = now
            left = self._bar.tasks[0].time_remaining
            remaining = f"  {timedelta(seconds=left)} left" if left else ""
            self._output.print(f"step {completed}/{self._steps}  {text}{remaining}")
