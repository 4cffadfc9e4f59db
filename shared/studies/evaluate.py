"""How good a run's samples are: `python -m shared.evaluate RUN` prints their distance to real ones.

The sliced Wasserstein distance (`shared.quality.metrics`) of images generated before training, of
images generated from a checkpoint and, as the floor, of real images among themselves. Any installed
framework can generate them, whichever trained the run. docs/evaluation.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.data.dataset import ImageDataset, load_dataset, to_pixels
from shared.files.atomic import write_file_atomically
from shared.files.checkpoint import Checkpoint, read_checkpoint
from shared.interface import (
    IMPLEMENTATIONS,
    Implementation,
    MissingFrameworkError,
    State,
    load_implementation,
)
from shared.quality.fidelity import Fidelity, fidelity, require_fidelity
from shared.quality.metrics import (
    FlatImagesError,
    SlicedWasserstein,
    pyramid_sizes,
    sliced_wasserstein_distance,
)
from shared.run.folder import RunFolder
from shared.run.pictures import save_png
from shared.spec import SystemSpec
from shared.spec.streams import MAXIMUM_SEED, latents, stream

BATCH_SIZE = 64
DEFAULT_SAMPLES = 1024
PIXEL_RANGE = (0.0, 255.0)


@dataclass(frozen=True)
class Distance:
    """One row of the table: what was compared, with how many images on each side.

    `distance` is None where there is none, and then `problem` says why.
    """

    name: str
    images: int
    distance: SlicedWasserstein | None
    problem: str = ""


@dataclass(frozen=True)
class ImageSets:
    """What is compared, uint8 [n, height, width, channels], n being the same in the first three.

    `halves` are two sets of real images that share none.
    """

    real: np.ndarray
    before: np.ndarray
    after: np.ndarray
    halves: tuple[np.ndarray, np.ndarray]


# --- the run ---------------------------------------------------------------------------------


def open_checkpoint(folder: Path, step: int | None = None) -> Checkpoint:
    """Read a run's last checkpoint, or that after `step` steps.

    Raises ValueError where there is none, CheckpointError for one that cannot be read.
    """
    run = RunFolder(folder)
    found = sorted(run.checkpoints.glob("step_*.safetensors"))
    if not found:
        raise ValueError(
            f"{folder} is no run with a checkpoint: {run.checkpoints} holds none; expected the "
            "folder that was --out in training"
        )
    path = run.latest_checkpoint(sys.maxsize) if step is None else run.checkpoint(step)
    if path not in found:
        names = ", ".join(f.stem.removeprefix("step_").lstrip("0") or "0" for f in found[-8:])
        raise ValueError(f"--step {step}: {folder} has no such checkpoint; expected one of {names}")
    return read_checkpoint(path)


def recorded_data(folder: Path, step: int) -> Path | None:
    """Return the data that run.json names for the session that made `step`; None is the digits.

    Raises ValueError if run.json does not say, or if what it names is gone.
    """
    description = RunFolder(folder).description
    try:
        sessions = json.loads(description.read_text())["sessions"]
        starts = [session for session in sessions if session["start"] < step]
        data = (starts or sessions)[-1]["options"]["data"]
        path = None if data is None else Path(data)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{description} does not say what the run was trained on "
            f"({type(error).__name__}: {error}); expected a run.json of training: give --data"
        ) from error
    if path is not None and not path.exists():
        raise ValueError(
            f"the run's data {path} is not there, seen from {Path.cwd()}; expected what run.json "
            "names: give --data"
        )
    return path


def choose_implementation(name: str, writer: object) -> Implementation:
    """Load an implementation by name; "auto" is the checkpoint's writer, else any installed one."""
    if name != "auto":
        return load_implementation(name)
    missing = []
    # A file may come from a stranger: only the three known names are imported, not any module.
    for known in sorted(IMPLEMENTATIONS, key=lambda known: known != writer):
        try:
            return load_implementation(known)
        except MissingFrameworkError as error:
            missing.append(str(error))
    raise MissingFrameworkError(f"no framework can generate images: {'; '.join(missing)}")


# --- the images ------------------------------------------------------------------------------


def generate_pixels(
    implementation: Implementation,
    state: State,
    spec: SystemSpec,
    count: int,
    seed: int,
    dtype: str,
) -> np.ndarray:
    """Return generated images as they would be saved, uint8 [count, height, width, channels].

    In inference mode, 64 at a time; image i depends on the seed and i alone. Raises ValueError if
    one is not finite, which `to_pixels` would make black.
    """
    batches = []
    for batch in range(-(-count // BATCH_SIZE)):
        drawn = latents(spec, seed, batch, BATCH_SIZE, purpose="evaluation").astype(dtype)
        images = implementation.generate(state, drawn)
        if not np.isfinite(images).all():
            raise ValueError(
                "the generator makes NaN or infinity; expected finite images: the run diverged, "
                "take an earlier checkpoint with --step"
            )
        batches.append(to_pixels(images, spec.image_range))
    return np.concatenate(batches)[:count]


def collect(
    implementation: Implementation,
    checkpoint: Checkpoint,
    dataset: ImageDataset,
    samples: int,
    seed: int,
) -> ImageSets:
    """Generate before and after training, and choose as many real images by the seed.

    Fewer than `samples` where the data hold no more. Raises ValueError for less than two.
    """
    available = len(dataset.images)
    if (count := min(samples, available)) < 2:
        raise ValueError(f"received {count} images to compare; expected at least 2")
    order = stream(seed, "evaluation/real").permutation(available)
    half = min(count, available // 2)
    spec, dtype = checkpoint.spec, _dtype(checkpoint)
    state = implementation.create(spec, seed=checkpoint.progress["seed"], dtype=dtype)
    before = generate_pixels(implementation, state, spec, count, seed, dtype)
    implementation.import_state(state, checkpoint.arrays)
    return ImageSets(
        real=dataset.images[order[:count]],
        before=before,
        after=generate_pixels(implementation, state, spec, count, seed, dtype),
        halves=(dataset.images[order[:half]], dataset.images[order[half : 2 * half]]),
    )


def _dtype(checkpoint: Checkpoint) -> str:
    """Return the floats' one dtype, float32 or float64."""
    return next(str(a.dtype) for a in checkpoint.arrays.values() if a.dtype.kind == "f")


def save_images(folder: Path, pixels: np.ndarray, name: str = "sample") -> None:
    """Write uint8 images [n, height, width, channels] as PNG files, numbered from 0."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(pixels):
        save_png(folder / f"{name}_{i:06d}.png", image)


# --- the figures -----------------------------------------------------------------------------


def measure(images: ImageSets, step: int, seed: int) -> list[Distance]:
    """Return the rows of the table: before training, after it, and the floor."""
    pairs = {
        "before training": (images.real, images.before),
        f"after {step} steps": (images.real, images.after),
        "real against real": images.halves,
    }
    return [_distance(name, real, other, seed) for name, (real, other) in pairs.items()]


def _distance(name: str, real: np.ndarray, other: np.ndarray, seed: int) -> Distance:
    if len(real) < 2:
        problem = f"{len(real)} images a side; expected at least 2: give more data"
        return Distance(name, len(real), None, problem)
    try:
        distance = sliced_wasserstein_distance(real, other, PIXEL_RANGE, seed=seed)
    except FlatImagesError as error:
        # A generator that has collapsed has no distance, but the other rows do.
        return Distance(name, len(real), None, str(error))
    return Distance(name, len(real), distance)


def measure_fidelity(images: ImageSets, step: int, weights: Path | None) -> dict[str, Fidelity]:
    """Return FID and KID before and after training against the same real images."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary, name) for name in ("real", "before", "after")}
        for name, folder in folders.items():
            save_images(folder, getattr(images, name))
        return {
            "before training": fidelity(folders["real"], folders["before"], weights=weights),
            f"after {step} steps": fidelity(folders["real"], folders["after"], weights=weights),
        }


def distance_table(rows: Sequence[Distance], sizes: Sequence[int]) -> str:
    """Return the rows as text, a column for each level, and a note for what needs one."""
    width = max(len(row.name) for row in rows) + 2
    titles = ["images", *(f"{size} px" for size in sizes), "average"]
    lines = ["sliced Wasserstein distance x 1000", _line("", titles, width)]
    for row in rows:
        cells = ["-"] * (len(sizes) + 1)
        if row.distance:
            values = [*(row.distance.by_size[size] for size in sizes), row.distance.average]
            cells = [f"{value:.1f}" for value in values]
        lines.append(_line(row.name, [str(row.images), *cells], width))
    lines += [f"note: {row.name}: {row.problem}" for row in rows if row.problem]
    if rows[-1].images < rows[0].images:
        lines.append(
            "note: fewer images make every distance larger, so real against real is above the "
            "floor of the other rows"
        )
    return "\n".join(lines)


def fidelity_table(measured: dict[str, Fidelity]) -> str:
    """Return FID and KID as text; KID times a thousand, as is usual, with its deviation."""
    width = max(len(name) for name in measured) + 2
    lines = [_line("", ["FID", "KID x 1000", "+-"], width)]
    for name, one in measured.items():
        values = (one.fid, 1000 * one.kid, 1000 * one.kid_deviation)
        lines.append(_line(name, [f"{value:.2f}" for value in values], width))
    return "\n".join(lines)


def _line(name: str, cells: Sequence[str], width: int) -> str:
    return f"{name:<{width}}" + "".join(f"{cell:>11}" for cell in cells)


# --- the command -----------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m shared.evaluate", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run: --out of training")
    parser.add_argument(
        "--data", type=Path, metavar="PATH", help="real images (default: the run's own)"
    )
    parser.add_argument(
        "--step", type=int, metavar="K", help="the checkpoint after K steps (default: the last)"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=DEFAULT_SAMPLES,
        metavar="N",
        help="images on each side; figures of different N cannot be compared "
        "(default: %(default)s, or as many as the data hold)",
    )
    parser.add_argument(
        "--framework",
        default="auto",
        metavar="NAME",
        help="pytorch, tf, jax or a dotted module path (default: the one that wrote the "
        "checkpoint, else any that is installed)",
    )
    _add_outputs(parser)
    return parser


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="of latents, choice of real images, patches and directions (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    parser.add_argument(
        "--save-samples", type=Path, metavar="DIR", help="write the samples as PNG files"
    )
    parser.add_argument(
        "--fid", action="store_true", help="also FID and KID; needs pip install -e '.[fid]'"
    )
    parser.add_argument(
        "--feature-weights",
        type=Path,
        metavar="FILE",
        help="Inception weights for --fid (default: torch-fidelity downloads them once)",
    )


def _check_options(options: argparse.Namespace) -> None:
    """Raise ValueError for what would fail only after minutes of work."""
    if options.samples < 2:
        raise ValueError(f"--samples must be at least 2, received {options.samples}")
    if not 0 <= options.seed <= MAXIMUM_SEED:
        raise ValueError(f"--seed must be between 0 and {MAXIMUM_SEED}, received {options.seed}")
    if options.feature_weights and not options.fid:
        raise ValueError("--feature-weights is received without --fid; expected both or neither")
    if options.json and (options.json.is_dir() or not options.json.resolve().parent.is_dir()):
        raise ValueError(f"--json {options.json}: expected a file in a folder that is there")
    folder = options.save_samples
    if folder and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--save-samples {folder} is taken; expected an empty folder or a new one")


def run(options: argparse.Namespace) -> None:
    """Do what the command line says."""
    _check_options(options)
    checkpoint = open_checkpoint(options.run, options.step)
    spec, step = checkpoint.spec, checkpoint.progress["step"]
    pyramid_sizes(spec.image_size)  # images that are too small fail before any are made
    if not isinstance(checkpoint.progress.get("seed"), int):
        raise ValueError(
            "the checkpoint does not say the seed of its run; expected one that training wrote"
        )
    source = options.data if options.data is not None else recorded_data(options.run, step)
    dataset = load_dataset(source, spec)
    if options.fid:
        require_fidelity(options.feature_weights)
    writer = checkpoint.progress.get("implementation")
    implementation = choose_implementation(options.framework, writer)
    print(_announcement(options, checkpoint, dataset, implementation.name), flush=True)
    images = collect(implementation, checkpoint, dataset, options.samples, options.seed)
    if options.save_samples:
        save_images(options.save_samples, images.after)
    rows = measure(images, step, options.seed)
    print(distance_table(rows, pyramid_sizes(spec.image_size)), flush=True)
    measured = measure_fidelity(images, step, options.feature_weights) if options.fid else {}
    if measured:
        print(fidelity_table(measured))
    if options.json:
        result = _as_json(options, checkpoint, dataset, implementation.name, rows, measured)
        write_file_atomically(options.json, json.dumps(result, indent=2).encode())


def _announcement(
    options: argparse.Namespace, checkpoint: Checkpoint, dataset: ImageDataset, framework: str
) -> str:
    spec, progress = checkpoint.spec, checkpoint.progress
    lines = [
        f"run        {options.run}, {progress['step']} steps",
        f"system     {spec.name}, loss {spec.loss}, width {spec.width}",
        f"data       {dataset.description}",
        f"generated  by {framework}, {_dtype(checkpoint)}, seed {options.seed}",
    ]
    if progress.get("dataset") != dataset.description:
        lines.append(f"note: it was trained on {progress.get('dataset')}")
    if len(dataset.images) < options.samples:
        lines.append(
            f"note: {len(dataset.images)} images a side instead of {options.samples}, "
            "the data hold no more"
        )
    return "\n".join(lines)


def _as_json(
    options: argparse.Namespace,
    checkpoint: Checkpoint,
    dataset: ImageDataset,
    framework: str,
    rows: Sequence[Distance],
    measured: dict[str, Fidelity],
) -> dict[str, Any]:
    distances = {}
    for row in rows:
        figures: dict[str, Any] = {"images": row.images}
        if row.distance:
            by_size = {str(size): value for size, value in row.distance.by_size.items()}
            figures |= {"by_size": by_size, "average": row.distance.average}
        else:
            figures |= {"problem": row.problem}
        distances[row.name] = figures
    return {
        "run": str(options.run),
        "step": checkpoint.progress["step"],
        "system": checkpoint.spec.to_dict(),
        "data": dataset.description,
        "framework": framework,
        "seed": options.seed,
        "sliced_wasserstein_x1000": distances,
        "fidelity": {name: asdict(one) for name, one in measured.items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; bad input is one line on stderr and exit code 2."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        run(options)
    except (ValueError, OSError, MissingFrameworkError) as error:
        print(f"{parser.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0
