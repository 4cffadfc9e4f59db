"""What a run says of itself: before its first step, in run.json, and at its end."""

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
    """Return the lines that say what is going to happen, with every default that matters."""
    spec = options.spec
    full = SYSTEMS[spec.name].width if spec.name in SYSTEMS else spec.width
    narrowed = f" (narrowed from {full})" if spec.width < full else ""
    parameters = ", ".join(f"{name} {spec.parameter_count(name):,}" for name in NETWORKS)
    rates = ", ".join(
        f"{name} {adam.learning_rate:g}"
        for name, adam in zip(
            NETWORKS, (spec.generator_optimizer, spec.discriminator_optimizer), strict=True
        )
    )
    steps = f"{options.steps} steps of batch {spec.batch_size}, seed {options.seed}"
    rows = [
        ("system", f"{spec.name}, loss {spec.loss}, width {spec.width}{narrowed}"),
        ("parameters", parameters),
        ("data", dataset.description),
        *_skipped_rows(dataset),
        ("training", steps),
        *_step_rows(spec),
        ("learning rates", rates),
        ("framework", f"{options.implementation}, {options.dtype}, on {device}"),
        *_devices_rows(options),
        ("out", printable(options.out)),
    ]
    return [*(f"{name:<15}{value}" for name, value in rows), _quality_row(quality)]


def session_entry(
    options: TrainingOptions,
    start: int,
    dataset: ImageDataset,
    device: str,
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """Return what run.json says of one session, as JSON data."""
    told = dataclasses.asdict(options)
    del told["spec"], told["config"]  # the one stands beside the sessions, the other has a file
    told.update(data=str(options.data) if options.data else None, out=str(options.out))
    return {
        "start": start,
        "options": told,
        "dataset": dataset.description,
        "device": device,
        "versions": {**versions, "numpy": np.__version__},
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def what_was_made(folder: RunFolder, completed: int, quality: float | None) -> list[str]:
    """Return where everything is after so many steps, and the last distance, if there is one."""
    files = {
        "samples": folder.latest_sample(completed),
        "checkpoint": folder.latest_checkpoint(completed),
        "losses": folder.losses_plot if folder.has_losses() else None,
    }
    rows = [f"{what:<15}{path}" for what, path in files.items() if path]
    return rows if quality is None else [*rows, f"{'quality':<15}SWD {quality:.0f}"]


def _skipped_rows(dataset: ImageDataset) -> list[tuple[str, str]]:
    """Return how many files were skipped, and the first of them with the reason."""
    if not dataset.skipped:
        return []
    shown = [*dataset.skipped[:SKIPPED_SHOWN]]
    if len(dataset.skipped) > SKIPPED_SHOWN:
        shown.append("...")
    return [
        ("skipped", f"{len(dataset.skipped):,} files"),
        *(("", f"  {line}") for line in shown),
    ]


def _devices_rows(options: TrainingOptions) -> list[tuple[str, str]]:
    """Return how a batch is divided, if it is."""
    if options.devices == 1:
        return []
    part = options.spec.batch_size // options.devices
    return [
        ("devices", f"{options.devices}, each with {part} images, {options.batch_norm} batch norm")
    ]


def _step_rows(spec: SystemSpec) -> list[tuple[str, str]]:
    """Return one step in words, unless it is one update of each network on the same images."""
    k = spec.discriminator_steps
    if (k, spec.generator_batch) == (1, "same_images"):
        return []
    first = "one discriminator update" if k == 1 else f"{k} discriminator updates on fresh batches"
    source = {
        "same_images": "the last of their fake images",
        "same_latents": "images made anew from the same latents",
        "new_latents": "images from new latents",
    }[spec.generator_batch]
    return [("each step", f"{first}, then the generator on {source}")]


def _quality_row(quality: SampleQuality) -> str:
    """Return the line that says what SWD is and how far down it can go."""
    count, floor = quality.count, quality.distance_of_real_images()
    reached = f" (other real ones: {floor:.0f})" if math.isfinite(floor) else ""
    return (
        f"{'quality':<15}SWD, sliced Wasserstein distance of {count} samples to {count} real "
        f"images{reached}; rough"
    )
