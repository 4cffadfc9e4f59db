#!/usr/bin/env bash
# Makes facades.png: the same run in three frameworks, their sample grids side by side.
# Usage: docs/images/make_facades.sh FOLDER_OF_PHOTOS [STEPS]
set -euo pipefail
cd "$(dirname "$0")/../.."
photos=$1
steps=${2:-3000}
for name in pytorch tf jax; do
  python -m "${name}_impl.train" --data "$photos" --width 32 --batch-size 32 --steps "$steps" \
    --seed 7 --out "runs/facades-$name"
done
python - "$steps" <<'PYTHON'
import sys
from PIL import Image

file = f"samples/step_{int(sys.argv[1]):06d}.png"
grids = [Image.open(f"runs/facades-{name}/{file}") for name in ("pytorch", "tf", "jax")]
side = 4 * 66 + 2  # the first four rows and columns of images of 64 pixels with gutters of 2
together = Image.new("RGB", (3 * side + 2 * 12, side), "white")
for i, grid in enumerate(grids):
    together.paste(grid.crop((0, 0, side, side)), (i * (side + 12), 0))
together.save("docs/images/facades.png")
PYTHON
