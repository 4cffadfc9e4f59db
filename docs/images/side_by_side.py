"""Put the first images of sample grids side by side: `side_by_side.py OUT SIZE COUNT GRID …`.

SIZE is that of an image in pixels, COUNT how many rows and columns of each grid are shown.
"""

import sys

from PIL import Image

GAP = 12


def main(out: str, size: int, count: int, *files: str) -> None:
    """Write the picture."""
    side = count * (size + 2) + 2  # gutters of 2
    together = Image.new("RGB", (len(files) * (side + GAP) - GAP, side), "white")
    for i, file in enumerate(files):
        together.paste(Image.open(file).crop((0, 0, side, side)), (i * (side + GAP), 0))
    together.save(out)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
