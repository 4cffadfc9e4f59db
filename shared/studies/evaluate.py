"""How good a run's samples are: `python -m shared.evaluate RUN` prints their distance to real ones.

The sliced Wasserstein distance (`shared.quality.metrics`) of images generated before training, of
images generated from a checkpoint and, as the floor, of real images among themselves. Any installed
framework can generate them, whichever trained the run. docs/evaluation.md says how to read it.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from shared.data.dataset import ImageDataset, load_dataset
from shared.files.atomic import require_place, write_file_atomically
from shared.files.checkpoint import read_checkpoint
from shared.files.errors import refused_as
from shared.interface import Array
from shared.quality.fidelity import fidelity, require_fidelity
from shared.quality.metrics import pyramid_sizes, sliced_wasserstein_distance
from shared.run.console import command, seed_number, shown_progress, text_table, tracked, whole
from shared.run.folder import RunFolder
from shared.sample import Generator, checkpoint_of, load_generator
from shared.spec.streams import stream

PIXEL_RANGE = (0.0, 255.0)
FLOOR = "real against real"

Pairs = dict[str, tuple[Array, Array]]
"""Row → real and other images, uint8 [n, height, width, channels]; FLOOR has real twice."""


def recorded_data(folder: Path, step: int) -> Path | None:
    """Return the data that made `step`, by run.json, None for the default; ValueError if gone."""
    run, advice = RunFolder(folder), "give --data"
    _, sessions = run.read_description(advice)
    with refused_as(run.description, "what the run was trained on", advice):
        session = ([one for one in sessions if one["start"] < step] or sessions)[-1]
        data = session["options"]["data"]
        path = None if data is None else Path(data)
    if path is not None and not path.exists():
        found = f"the run's data {path} is not there, seen from {Path.cwd()}"
        raise ValueError(f"{found}; expected what run.json names: {advice}")
    return path


def collect(
    generator: Generator, progress: dict[str, Any], dataset: ImageDataset, samples: int, seed: int
) -> Pairs:
    """Generate before and after training, and choose at most as many real images, by the seed."""
    available = len(dataset.images)
    if (count := min(samples, available)) < 2:
        raise ValueError(f"received {count} images to compare; expected at least 2")
    order = stream(seed, "evaluation/real").permutation(available)
    real, half = dataset.images[order[:count]], min(count, available // 2)
    own, dtype = generator.implementation, generator.dtype
    fresh = own.create(generator.spec, seed=progress["seed"], dtype=dtype)
    drawn = generator.latents(count, seed)
    with shown_progress("generated images", 2 * count) as advance:
        before = generator._replace(state=fresh).images(drawn, advance)
        after = generator.images(drawn, advance)
    return {
        "before training": (real, before),
        f"after {progress['step']} steps": (real, after),
        FLOOR: (dataset.images[order[:half]], dataset.images[order[half : 2 * half]]),
    }


def measure(pairs: Pairs, seed: int) -> dict[str, dict[str, Any]]:
    """Return each row's figures: images, and by_size and average or the problem with them."""
    rows: dict[str, dict[str, Any]] = {}
    for name, (real, other) in tracked("distances", pairs.items()):
        rows[name] = {"images": len(real)}
        try:
            distance = sliced_wasserstein_distance(real, other, PIXEL_RANGE, seed=seed)
        except ValueError as error:
            # One image a side, or a generator that has collapsed, has none; but the other rows do.
            rows[name]["problem"] = str(error)
            continue
        rows[name]["by_size"] = {str(size): value for size, value in distance.items()}
        rows[name]["average"] = fmean(distance.values())
    return rows


def _distance_table(rows: dict[str, dict[str, Any]], sizes: Sequence[int]) -> str:
    table = [["", "images", *(f"{size} px" for size in sizes), "average"]]
    for name, row in rows.items():
        figures = [*row["by_size"].values(), row["average"]] if "average" in row else ()
        cells = [f"{value:.1f}" for value in figures] or ["-"] * (len(sizes) + 1)
        table.append([name, str(row["images"]), *cells])
    what = "sliced Wasserstein distance x 1000 (training's SWD: of 64 images, at fewer places)"
    lines = [what, text_table(table, "<>")]
    lines += [f"note: {n}: {row['problem']}" for n, row in rows.items() if "problem" in row]
    if rows[FLOOR]["images"] < max(row["images"] for row in rows.values()):
        above = "so real against real is above the floor of the other rows"
        lines.append(f"note: fewer images make every distance larger, {above}")
    return "\n".join(lines)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="folder of a run: --out of training")
    add("--data", type=Path, metavar="PATH", help="real images (default: the run's own)")
    add("--step", type=int, metavar="K", help="the checkpoint after K steps (default: the last)")
    samples = "images a side, the same to compare (default: %(default)s, or all there are)"
    add("--samples", type=whole(2), default=1024, metavar="N", help=samples)
    framework = "a name or a dotted module path (default: the checkpoint's, else any installed)"
    add("--framework", default="auto", metavar="NAME", help=framework)
    seed = "of latents, choice of real images, patches and directions (default: %(default)s)"
    add("--seed", type=seed_number, default=0, metavar="S", help=seed)
    add("--json", type=Path, metavar="FILE", help="write every figure")
    add("--fid", action="store_true", help="also FID and KID; needs pip install -e '.[fid]'")
    weights = "--fid with these Inception weights (default: torch-fidelity downloads them once)"
    add("--feature-weights", type=Path, metavar="FILE", help=weights)


def _run(options: argparse.Namespace) -> None:
    # First what would fail only after minutes of work.
    require_place(options.json)
    weights, wants_fid = options.feature_weights, options.fid or options.feature_weights
    checkpoint = read_checkpoint(checkpoint_of(options.run, options.step))
    spec, progress = checkpoint.spec, checkpoint.progress
    sizes = pyramid_sizes(spec.image_size)  # images that are too small fail before any are made
    if not isinstance(progress.get("seed"), int):
        raise ValueError(
            "the checkpoint does not hold the seed of its run; expected training's own"
        )
    dataset = load_dataset(options.data or recorded_data(options.run, progress["step"]), spec)
    if wants_fid:
        require_fidelity(weights)
    generator = load_generator(options.run, options.framework, options.step)
    print(f"run        {options.run}, {progress['step']} steps")
    print(f"system     {spec.name}, loss {spec.loss}, width {spec.width}")
    print(f"data       {dataset.description}")
    print(f"generated  by {generator.implementation.name}, {generator.dtype}, seed {options.seed}")
    if progress.get("dataset") != dataset.description:
        print(f"note: it was trained on {progress.get('dataset')}")
    if len(dataset.images) < options.samples:
        sides = f"{len(dataset.images)} images a side instead of {options.samples}"
        print(f"note: {sides}, the data hold no more")
    pairs = collect(generator, progress, dataset, options.samples, options.seed)
    rows = measure(pairs, options.seed)
    print(_distance_table(rows, sizes), flush=True)
    names = [name for name in pairs if wants_fid and name != FLOOR]
    measured = {n: fidelity(*pairs[n], weights) for n in tracked("FID and KID", names)}
    if measured:
        table = [["", "FID", "KID x 1000", "+-"]]
        for name, one in measured.items():
            values = (one["fid"], 1000 * one["kid"], 1000 * one["kid_deviation"])
            table.append([name, *(f"{value:.2f}" for value in values)])
        print(text_table(table, "<>"))
    if options.json:
        result = {"run": str(options.run), "step": progress["step"], "system": spec.to_dict()}
        result |= {"data": dataset.description, "framework": generator.implementation.name}
        result |= {"seed": options.seed, "sliced_wasserstein_x1000": rows, "fidelity": measured}
        write_file_atomically(options.json, json.dumps(result, indent=2).encode())


main = command("python -m shared.evaluate", __doc__, _add_options, _run)
