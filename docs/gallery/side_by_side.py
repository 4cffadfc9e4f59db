"""Put the last sample grids of the gallery's runs side by side: `side_by_side.py RUNS OUT`."""

import sys
from pathlib import Path

from PIL import Image

GAP = 12
FRAMEWORKS = ("pytorch", "tf", "jax")
PICTURES = {  # file: (runs from left to right, size of an image, rows and columns shown)
    "mlp28.png": ([f"mlp28-{name}" for name in FRAMEWORKS], 28, 8),
    "conv28.png": ([f"conv28-{name}" for name in FRAMEWORKS], 28, 8),
    "facades_lsgan.png": ([f"dcgan64-lsgan-{name}" for name in FRAMEWORKS], 64, 4),
    "facades_bce_and_lsgan.png": (["dcgan64-tf", "dcgan64-lsgan-tf"], 64, 6),
}


def main(runs: Path, out: Path) -> None:
    """Write every picture whose runs are all there; say which are not."""
    for file, (names, size, count) in PICTURES.items():
        grids = [sorted((runs / name / "samples").glob("step_*.png"))[-1:] for name in names]
        if not all(grids):
            print(f"{file}: not all of {', '.join(names)} are in {runs}")
            continue
        side = count * (size + 2) + 2  # gutters of 2
        together = Image.new("RGB", (len(grids) * (side + GAP) - GAP, side), "white")
        for i, (grid,) in enumerate(grids):
            together.paste(Image.open(grid).crop((0, 0, side, side)), (i * (side + GAP), 0))
        together.save(out / file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
