"""A trained generator, from a run or from any file that the project reads: `load_generator`."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared import interface
from shared.data.dataset import to_pixels
from shared.files.checkpoint import CheckpointError
from shared.formats.file_kinds import kind_of
from shared.interface import Array, Implementation, State, load_implementation
from shared.run.folder import RunFolder, numbered
from shared.spec import SystemSpec
from shared.spec.streams import initial_state, latents

BATCH_SIZE = 64
EXAMPLE = Path(__file__).parents[1] / "data" / "fashion-mnist-generator.safetensors"
"""A trained generator that comes with the project: docs/model_card.md."""


class Generator(NamedTuple):
    """A generator in a framework: latents in, images out, always by the running statistics."""

    implementation: Implementation
    state: State
    spec: SystemSpec
    dtype: str

    def latents(self, count: int, seed: int = 0) -> Array:
        """Return float64 [count, latent_dim]; row i depends on the seed and i alone."""
        batches = range(math.ceil(count / BATCH_SIZE))
        drawn = [latents(self.spec, seed, b, BATCH_SIZE, purpose="evaluation") for b in batches]
        return np.concatenate(drawn)[:count]

    def interpolated(self, first: Array, last: Array, count: int) -> Array:
        """Return [count, latent_dim] from one latent to another, each as normal as they are."""
        weights = np.linspace(0.0, 1.0, count)[:, None]
        mixed = (1.0 - weights) * first + weights * last
        if self.spec.latent_distribution != "normal":
            return mixed
        return mixed / np.hypot(1.0 - weights, weights)  # a mean of two is too close to zero

    def images(self, drawn: Array, advance: Callable[[int], object] = lambda _: None) -> Array:
        """Return uint8 images [n, height, width, channels]; `advance` is told of each batch."""
        batches = []
        for start in range(0, len(drawn), BATCH_SIZE):
            rows = drawn[start : start + BATCH_SIZE].astype(self.dtype)
            # Whole batches only: compiled frameworks would compile once more for the rest.
            whole = np.pad(rows, ((0, BATCH_SIZE - len(rows)), (0, 0)))
            made = self.implementation.generate(self.state, whole)[: len(rows)]
            if not np.isfinite(made).all():
                advice = "the run diverged, take an earlier checkpoint with --step"
                raise ValueError(f"the generator makes NaN or infinity; expected images: {advice}")
            batches.append(to_pixels(made, self.spec.image_range))
            advance(len(rows))
        return np.concatenate(batches)

    def sample(self, count: int, seed: int = 0) -> Array:
        """Return uint8 images [count, height, width, channels]; image i is that of latent i."""
        return self.images(self.latents(count, seed))


def load_generator(
    path: str | Path = EXAMPLE, framework: str = "auto", step: int | None = None
) -> Generator:
    """Return the generator of a run's last checkpoint, or that after `step` steps, or of a file.

    Raises InputError, ValueError, or MissingFrameworkError where no framework can run it.

    >>> images = load_generator("netG.pth").sample(16, seed=1)  # uint8 [16, 64, 64, 3]
    """
    path = Path(path)
    if RunFolder(path).checkpoints.is_dir() or step is not None:
        path = checkpoint_of(path, step)
    kind = kind_of(path)
    contents = kind.read(path)
    writer = kind.implementation or contents.progress.get("implementation")
    if "generator" not in contents.networks:
        raise CheckpointError(f"{path} holds {', '.join(contents.parts)}; expected a generator")
    spec, implementation = contents.spec, choose_implementation(framework, writer)
    dtype = "float64" if implementation.name == "reference" else contents.dtype
    state = implementation.create(spec, seed=0, dtype=dtype)
    implementation.import_state(state, initial_state(spec, 0) | contents.arrays)
    return Generator(implementation, state, spec, dtype)


def checkpoint_of(folder: Path, step: int | None) -> Path:
    """Return a run's last checkpoint, or that after `step` steps; ValueError where it has none."""
    if not (found := numbered(RunFolder(folder).checkpoints)):
        raise ValueError(f"{folder} is no run with a checkpoint; expected training's --out")
    step = max(found) if step is None else step
    if step not in found:
        names = ", ".join(map(str, [*found][-8:]))
        raise ValueError(f"--step {step}: {folder} has no such checkpoint; expected one of {names}")
    return found[step]


def choose_implementation(name: str, writer: object) -> Implementation:
    """Load an implementation by name; "auto" is the checkpoint's writer, else any installed one."""
    if name != "auto":
        return load_implementation(name)
    missing = []
    # A file may be a third party's: only the three known names are imported, not any module.
    for known in sorted(interface.IMPLEMENTATIONS, key=lambda known: known != writer):
        try:
            return load_implementation(known)
        except interface.MissingFrameworkError as error:
            missing.append(str(error))
    raise interface.MissingFrameworkError(f"no framework can generate images: {'; '.join(missing)}")
