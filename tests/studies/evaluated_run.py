"""A run with one checkpoint, data beside it, and the evaluation of both."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from shared.files.checkpoint import write_checkpoint
from shared.run.folder import RunFolder
from shared.spec import SYSTEMS, SystemSpec
from shared.spec.streams import initial_state
from shared.studies import evaluate

SEED = 3
SPEC = SYSTEMS["dcgan64"].replace(width=4, batch_size=4)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def trained_arrays(spec: SystemSpec = SPEC, dtype: str = "float32") -> dict[str, np.ndarray]:
    """Weights that are not the start's, with enough contrast for pictures in every system."""
    arrays = initial_state(spec, SEED + 1)
    for name, array in arrays.items():
        if name.startswith("generator/") and name.endswith("/kernel"):
            array *= 4
    return {n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in arrays.items()}


def write_run(
    folder: Path,
    arrays: dict[str, np.ndarray] | None = None,
    *,
    spec: SystemSpec = SPEC,
    step: int = 7,
    data: str | None = None,
    writer: str = "jax",
) -> Path:
    run = RunFolder(folder)
    run.create()
    progress = {"step": step, "seed": SEED, "implementation": writer, "dataset": "some photos"}
    arrays = trained_arrays(spec) if arrays is None else arrays
    write_checkpoint(run.checkpoint(step), arrays, spec, progress=progress)
    run.add_session(spec.to_dict(), {"start": 0, "options": {"data": data}})
    return folder


def write_data(path: Path, count: int = 20, size: int = 64) -> Path:
    images = draw(1).integers(0, 256, (count, size // 8, size // 8, 3), np.uint8)
    np.savez(path, images=images.repeat(8, 1).repeat(8, 2))
    return path


def figures(out: Path, *arguments: object) -> dict[str, Any]:
    """Run the command, which has to succeed, and return its JSON."""
    arguments = (*arguments, "--json", out / "figures.json")
    assert evaluate.main([str(a) for a in arguments]) == 0
    return json.loads((out / "figures.json").read_text())
