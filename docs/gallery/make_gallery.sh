#!/usr/bin/env bash
# Makes the pictures of this folder: the same runs in three frameworks, their samples side by side.
# Usage: docs/gallery/make_gallery.sh FOLDER_OF_PHOTOS MNIST_IMAGES [FOLDER_OF_RUNS]
# About an hour on two CPU cores with nothing else running on them.
set -euo pipefail
photos=$(realpath "$1")
digits=$(realpath "$2")
cd "$(dirname "$0")/../.."
runs=${3:-runs/gallery}
for name in pytorch tf jax; do
  python -m "${name}_impl.train" --system mlp28 --full --data "$digits" --steps 20000 \
    --sample-every 5000 --checkpoint-every 10000 --seed 7 --out "$runs/mlp28-$name"
done
for name in tf jax pytorch; do
  python -m "${name}_impl.train" --system conv28 --full --data "$digits" --steps 1500 \
    --sample-every 500 --seed 7 --out "$runs/conv28-$name"
done
for name in tf pytorch jax; do
  python -m "${name}_impl.train" --system dcgan64-lsgan --width 32 --batch-size 32 --data "$photos" \
    --steps 3000 --sample-every 1000 --checkpoint-every 1000 --seed 7 --out "$runs/dcgan64-lsgan-$name"
done
python -m tf_impl.train --system dcgan64 --width 32 --batch-size 32 --data "$photos" \
  --steps 3000 --sample-every 1000 --checkpoint-every 1000 --seed 7 --out "$runs/dcgan64-tf"
for run in "$runs"/*/; do
  python -m shared.evaluate "$run"
done

# A picture: its file, the size of an image, rows and columns shown, the runs from left to right.
side_by_side() {
  local out=docs/gallery/$1 size=$2 count=$3 grids=() name
  shift 3
  for name in "$@"; do
    grids+=("$(find "$runs/$name/samples" -name 'step_*.png' | sort | tail -1)")
  done
  python docs/images/side_by_side.py "$out" "$size" "$count" "${grids[@]}"
}
side_by_side mlp28.png 28 8 mlp28-{pytorch,tf,jax}
side_by_side conv28.png 28 8 conv28-{pytorch,tf,jax}
side_by_side facades_lsgan.png 64 4 dcgan64-lsgan-{pytorch,tf,jax}
side_by_side facades_bce_and_lsgan.png 64 6 dcgan64-tf dcgan64-lsgan-tf
