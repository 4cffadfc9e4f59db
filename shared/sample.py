"""Images of a trained generator: `python -m shared.sample RUN_OR_FILE`.

RUN_OR_FILE is the folder of a run, or a file of any kind that `python -m shared.convert` reads;
without it, a small generator that comes with the project is used. Image i depends on the seed and
on i alone; frameworks differ by the rounding of float32. In Python it is `load_generator`.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared import interface
from shared.data.dataset import to_pixels
from shared.files.atomic import require_empty_folder
from shared.files.errors import InputError
from shared.formats.file_kinds import kind_of
from shared.interface import Array, Implementation, State, load_implementation
from shared.run.console import command, seed_number, shown_progress, whole
from shared.run.folder import RunFolder, numbered
from shared.run.pictures import save_png, tiles
from shared.spec import SystemSpec
from shared.spec.streams import initial_state, latents

MAXIMUM_COUNT = 1_000_000
BATCH_SIZE = 64
EXAMPLE = Path(__file__).parent / "data" / "fashion-mnist-generator.safetensors"
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
        """Return uint8 images [n, height, width, channels]; `advance(n)` reports a batch."""
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
        raise InputError(f"{path} holds {', '.join(contents.parts)}; expected a generator")
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


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    source = "folder of a run, or a file of networks (default: a generator of Fashion-MNIST)"
    add("source", nargs="?", type=Path, default=EXAMPLE, metavar="RUN_OR_FILE", help=source)
    count = whole(1, MAXIMUM_COUNT)
    add("--count", type=count, default=64, metavar="N", help="images (default: %(default)s)")
    add("--grid", action="store_true", help="all in one picture, in rows of 8")
    way = "N steps on the way from image number A of the seed to number B"
    add("--interpolate", type=whole(0, MAXIMUM_COUNT), nargs=2, metavar=("A", "B"), help=way)
    add("--seed", type=seed_number, default=0, metavar="S", help="of the latents (default: 0)")
    out = "folder for the PNG files (default: %(default)s)"
    add("--out", type=Path, default=Path("samples"), metavar="DIR", help=out)
    framework = "pytorch, tf, jax, reference (default: the one that wrote it, else any installed)"
    add("--framework", default="auto", metavar="NAME", help=framework)
    add("--step", type=int, metavar="K", help="of a run: after K steps (default: the last)")
    add("--debug", action="store_true", help="add the traceback to an error")


def _run(options: argparse.Namespace) -> None:
    ends = options.interpolate
    require_empty_folder(options.out, "--out")
    generator = load_generator(options.source, options.framework, options.step)
    spec = generator.spec
    print(f"generator  {spec.name}, width {spec.width}, from {options.source}")
    print(f"images     by {generator.implementation.name}, {generator.dtype}, seed {options.seed}")
    drawn = generator.latents(max(ends) + 1 if ends else options.count, options.seed)
    if ends:
        first, last = drawn[ends]
        drawn = generator.interpolated(first, last, options.count)
    with shown_progress("images", options.count) as advance:
        images = generator.images(drawn, advance)
    options.out.mkdir(parents=True, exist_ok=True)
    where = options.out / ("grid.png" if options.grid else "sample_*.png")
    for i, picture in enumerate([tiles(images)] if options.grid else images):
        save_png(where.with_name(where.name.replace("*", f"{i:06d}")), picture)
    print(f"wrote      {where}: {len(images)} images of {spec.image_size}x{spec.image_size} pixels")


main = command("python -m shared.sample", __doc__, _add_options, _run)

if __name__ == "__main__":
    raise SystemExit(main())
