"""One global batch on several devices: who takes which rows, and what cannot be divided.

Every device is given its slice of the same batches that one device would train on, so that the
number of devices changes where a step is computed and nothing else.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from shared.spec.systems import SystemSpec

__all__ = ["BATCH_NORMS", "BatchNormKind", "check_replicas", "rows_of_replica"]

BatchNormKind = Literal["global", "per-replica"]
BATCH_NORMS: tuple[BatchNormKind, ...] = get_args(BatchNormKind)
"""global: the statistics of the global batch, the same numbers on any number of devices.
per-replica: each device normalises by its own slice; running statistics are the devices' mean."""


def check_replicas(spec: SystemSpec, devices: int, batch_norm: str) -> None:
    """Raise ValueError unless the system's batches can be trained on so many devices."""
    if devices < 1:
        raise ValueError(f"--devices must be at least 1, received {devices}")
    if batch_norm not in BATCH_NORMS:
        expected = " or ".join(BATCH_NORMS)
        raise ValueError(f"--batch-norm must be {expected}, received {batch_norm!r}")
    if spec.batch_size % devices:
        raise ValueError(
            f"--batch-size {spec.batch_size} cannot be divided among --devices {devices}; "
            f"use a multiple of {devices}"
        )
    if batch_norm == "per-replica" and spec.batch_size < 2 * devices:
        raise ValueError(
            f"--batch-norm per-replica needs 2 images on each device, because batch normalisation "
            f"needs a variance; --batch-size {spec.batch_size} on --devices {devices} leaves 1"
        )


def rows_of_replica(array: np.ndarray, batches: int, devices: int, replica: int) -> np.ndarray:
    """Return one device's rows of `batches` batches that lie one after another in `array`.

    Of each batch of B rows, those from replica · B/devices on, B/devices of them. Raises
    ValueError if B is not a multiple of `devices`.

    >>> rows_of_replica(np.arange(8), batches=2, devices=2, replica=1)
    array([2, 3, 6, 7])
    """
    if len(array) % (batches * devices):
        raise ValueError(
            f"{len(array)} rows cannot be divided into {batches} batches on {devices} devices"
        )
    parts = array.reshape(batches, devices, -1, *array.shape[1:])[:, replica]
    return parts.reshape(-1, *array.shape[1:])
