"""One process of a run: what it trains on, and when it stops."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from shared.data.dataset import Batches, load_dataset
from shared.run.console import set_handlers
from shared.run.folder import RunFolder
from shared.run.options import TrainingOptions
from shared.spec.streams import latents

SAMPLE_COUNT = 64
VOTE_EVERY = 10  # steps between two votes of several processes, each of which is a wait


@dataclass(frozen=True)
class Processes:
    """The several processes of a run, as one of them sees them.

    `is_first`: whether this is the one that prints and writes. `any_process`: whether any of
    them passes True; all must call it at the same time.
    """

    is_first: bool
    any_process: Callable[[bool], bool]


class RunProcess:
    """The inputs of every step, from nothing but the options and the data.

    As it is, this is a process that trains along and leaves printing and writing, Ctrl-C too, to
    the first process, which has a `shared.run.training.TrainingRun`. `restored`: the arrays to
    import when resuming, or None. `start`: the steps completed before. The folder of the run is
    expected under the same path on every host. Raises ValueError for a folder that holds nothing
    to resume, CheckpointError for a checkpoint of other options, DataError for the data.
    """

    def __init__(self, options: TrainingOptions, processes: Processes | None = None) -> None:
        self.options = options
        checkpoint = None
        self._notes: list[str] = []
        if options.resume:
            checkpoint, self._notes = RunFolder(options.out).read_last_checkpoint(options)
        self._dataset = load_dataset(options.data, options.spec)
        if checkpoint and checkpoint.progress.get("dataset") != self._dataset.description:
            self._notes.append(f"note: it was trained on {checkpoint.progress.get('dataset')}")
        self.restored = checkpoint.arrays if checkpoint else None
        self.start: int = checkpoint.progress["step"] if checkpoint else 0
        self._batches = Batches(
            self._dataset.images, options.spec, options.spec.batch_size, options.seed, options.dtype
        )
        self._processes = processes
        self._final_step = options.steps - 1

    @property
    def sample_latents(self) -> np.ndarray:
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

    def inputs(self, step: int) -> tuple[np.ndarray, np.ndarray]:
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
            self._begin(held)
            self._held = held.pop_all()
        return self

    def _begin(self, held: contextlib.ExitStack) -> None:
        """Begin what `held` ends with the run."""
        held.callback(set_handlers, set_handlers({signal.SIGINT: signal.SIG_IGN}))

    def __exit__(self, *failure: object) -> None:
        self._held.close()

    def record(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Note at every tenth step whether the run is to stop."""
        self._stop_if(False, step)

    def save_initial_samples(self, images: np.ndarray) -> None:
        """Save what untrained weights make of `sample_latents`, as `save_samples` does."""
        self.save_samples(-1, images)

    def save_samples(self, step: int, images: np.ndarray) -> None:
        """Leave it to the first process."""

    def save_checkpoint(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Leave it to the first process."""

    def _stop_if(self, interrupted: bool, step: int) -> None:
        """Make this step the last one if this process, or any of several, was interrupted."""
        if self._processes:
            votes = (step + 1) % VOTE_EVERY == 0
            interrupted = votes and self._processes.any_process(interrupted)
        if interrupted:
            self._final_step = step
