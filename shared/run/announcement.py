"""What a run prints before its first step and at its end, and its entry in run.json."""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from shared.data.dataset import ImageDataset
from shared.files.errors import printable
from shared.quality.sample_quality import SampleQuality
from shared.run.folder import RunFolder
from shared.run.options import TrainingOptions
from shared.spec import NETWORKS, SYSTEMS, SystemSpec

SKIPPED_SHOWN = 3  # files of the data set that were skipped and are named


def announcement(
    options: TrainingOptions, dataset: ImageDataset, device: str, quality: SampleQuality
) -> list[str]:
    """Return the lines that describe what is going to happen, with every default that matters."""
    spec = options.spec
    full = SYSTEMS[spec.name].width if spec.name in SYSTEMS else spec.width
    narrowed = f" (narrowed from {full})" if spec.width < full else ""
    parameters = ", ".join(f"{name} {spec.parameter_count(name):,}" for name in NETWORKS)
    rates = ", ".join(
        f"{name} {getattr(spec, f'{name}_optimizer').learning_rate:g}" for name in NETWORKS
    )
    skipped = [f"{len(dataset.skipped):,} files"] if dataset.skipped else []
    skipped += [f"  {line}" for line in dataset.skipped[:SKIPPED_SHOWN]]
    skipped += ["  ..."] if len(dataset.skipped) > SKIPPED_SHOWN else []
    rows_each = spec.batch_size // options.devices
    devices = f"{options.devices}, each with {rows_each} images, {options.batch_norm} batch norm"
    rows = [
        ("system", f"{spec.name}, loss {spec.loss}, width {spec.width}{narrowed}"),
        ("parameters", parameters),
        ("data", dataset.description),
        *(("" if i else "skipped", line) for i, line in enumerate(skipped)),
        ("training", f"{options.steps} steps of batch {spec.batch_size}, seed {options.seed}"),
        ("each step", _one_step(spec)),
        ("learning rates", rates),
        ("framework", f"{options.implementation}, {options.dtype}, on {device}"),
        ("devices", devices if options.devices > 1 else ""),
        ("out", printable(options.out)),
        ("quality", _meaning_of_quality(quality)),
    ]
    return [f"{name:<15}{value}" for name, value in rows if value]


def _one_step(spec: SystemSpec) -> str:
    """Return one step in words, or "" for one update of each network on the same images."""
    k = spec.discriminator_steps
    if (k, spec.generator_batch) == (1, "same_images"):
        return ""
    first = "one discriminator update" if k == 1 else f"{k} discriminator updates on fresh batches"
    source = {
        "same_images": "the last of their fake images",
        "same_latents": "images made anew from the same latents",
        "new_latents": "images from new latents",
    }[spec.generator_batch]
    return f"{first}, then the generator on {source}"


def _meaning_of_quality(quality: SampleQuality) -> str:
    """Return what SWD is and how far down it can go."""
    count, floor = quality.count, quality.distance_of_real_images()
    reached = f" (other real ones: {floor:.0f})" if math.isfinite(floor) else ""
    distance = f"SWD, sliced Wasserstein distance of {count} samples to {count} real images"
    return f"{distance}{reached}; rough"


def results(folder: RunFolder, completed: int, quality: float | None) -> list[str]:
    """Return where everything is after so many steps, and the last distance, if there is one."""
    rows = {
        "samples": folder.latest_sample(completed),
        "checkpoint": folder.latest_checkpoint(completed),
        "losses": folder.losses_plot if folder.has_losses() else None,
        "quality": None if quality is None else f"SWD {quality:.0f}",
    }
    return [f"{name:<15}{value}" for name, value in rows.items() if value]


def session_entry(
    options: TrainingOptions,
    start: int,
    dataset: ImageDataset,
    device: str,
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """Return the entry of one session in run.json, as JSON data."""
    values = dataclasses.asdict(options)
    del values["spec"], values["config"]  # one is beside the sessions, the other has a file
    values.update(data=str(options.data) if options.data else None, out=str(options.out))
    return {
        "start": start,
        "options": values,
        "dataset": dataset.description,
        "device": device,
        "versions": {**versions, "numpy": np.__version__},
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
