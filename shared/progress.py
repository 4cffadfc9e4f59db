"""What the terminal shows while a run trains: a bar, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


class ProgressDisplay:
    """Steps, real images per second, losses, quality and remaining time of one run.

    On a terminal a bar; otherwise, in a log or a pipe, a line every ten seconds and at the end.
    """

    def __init__(self, start: int, steps: int, images_per_step: int) -> None:
        self._steps = steps
        self._images_per_step = images_per_step
        self._quality = ""
        self._console = Console()
        self._bar = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        # The first step of a compiled framework can take a minute, in which nothing moves.
        self._task = self._bar.add_task("first steps …", total=steps, completed=min(start, steps))
        self._losses_at = start
        self._losses_time = self._line_time = time.monotonic()

    def start(self) -> None:
        """Show the bar, and start the clock of the images per second."""
        self._losses_time = self._line_time = time.monotonic()
        if self._console.is_terminal:
            self._bar.start()

    def stop(self) -> None:
        """Leave the bar as it stands."""
        if self._console.is_terminal:
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
        if due and not self._console.is_terminal:
            self._line_time = now
            print(f"step {completed}/{self._steps}  {text}", flush=True)
