"""Images of a trained generator: `python -m shared.sample RUN_OR_FILE`.

RUN_OR_FILE is the folder of a run, or a file of any kind that `python -m shared.convert` reads;
without it, a small generator that comes with the project paints. Image i depends on the seed and on
i alone; frameworks differ by the rounding of float32. In Python it is `load_generator`.
"""

import argparse
from pathlib import Path

from shared.files.atomic import require_empty_folder
from shared.run.console import command, seed_number, shown_progress, whole
from shared.run.generator import EXAMPLE, load_generator
from shared.run.pictures import save_png, tiles

__all__ = ["load_generator"]

MAXIMUM_COUNT = 1_000_000


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
