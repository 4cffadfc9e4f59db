"""Join the upper left corners of sample grids: `side_by_side.py OUT SIZE COUNT GRID …`.

SIZE is that of an image in pixels, COUNT how many rows and columns of each grid are shown.
"""

import sys

from PIL import Image

out, (size, count), files = sys.argv[1], map(int, sys.argv[2:4]), sys.argv[4:]
side, gap = count * (size + 2) + 2, 12  # pixels; gutters of 2 between the images of a grid
together = Image.new("RGB", (len(files) * (side + gap) - gap, side), "white")
for i, file in enumerate(files):
    together.paste(Image.open(file).crop((0, 0, side, side)), (i * (side + gap), 0))
together.save(out)
