"""What a run trains on and when it stops: the half that each of its processes has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from shared.data.dataset import Batches, ImageDataset
from shared.files.checkpoint import Checkpoint
from shared.run.options import TrainingOptions
from shared.spec.streams import latents

SAMPLE_COUNT = 64
AGREE_EVERY = 10  # steps between two agreements of several processes, each of which is a wait

Agree = Callable[[bool], bool]
"""Whether any process of the run says True; every process calls it at the same steps."""


class RunInputs:
    """The inputs of every step, from nothing but the options and the data.

    `restored`: the arrays to import when resuming, or None. `start`: the steps completed before.
    """

    def __init__(
        self,
        options: TrainingOptions,
        dataset: ImageDataset,
        checkpoint: Checkpoint | None,
        agree: Agree | None = None,
    ) -> None:
        self.options = options
        self.restored = checkpoint.arrays if checkpoint else None
        self.start: int = checkpoint.progress["step"] if checkpoint else 0
        spec = options.spec
        self._batches = Batches(dataset.images, spec, spec.batch_size, options.seed, options.dtype)
        self._agree = agree
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

    def _stop_if(self, interrupted: bool, step: int) -> None:
        """Make this step the last one if this process, or any of several, was interrupted."""
        if self._agree is None:
            stop = interrupted
        else:
            stop = (step + 1) % AGREE_EVERY == 0 and self._agree(interrupted)
        if stop:
            self._final_step = step
