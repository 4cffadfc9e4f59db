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
grid=samples/step_$(printf %06d "$steps").png
python docs/images/side_by_side.py docs/images/facades.png 64 4 runs/facades-{pytorch,tf,jax}/"$grid"
