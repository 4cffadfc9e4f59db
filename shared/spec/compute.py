"""How a training state computes: what may be chosen beside the system, and what cannot be had.

Precisions: float32 computes every product in float32. tf32: convolutions and matrix products of an
NVIDIA GPU with 10 bits of mantissa. bfloat16: activations and products with 8 bits; batch
statistics, losses, weights and optimizer stay in float32.

Devices: each is given its slice of the same batches that one device would train on, so that their
number changes where a step is computed and nothing else.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from shared.spec.systems import SYSTEMS, SystemSpec, check_choice

DTYPES = ("float32", "float64")
PRECISIONS = {"fp32": "float32", "tf32": "tf32", "bf16": "bfloat16"}
"""As on a command line → as everywhere else."""
BatchNormKind = Literal["global", "per-replica"]
BATCH_NORMS: tuple[BatchNormKind, ...] = get_args(BatchNormKind)
"""global: the statistics of the global batch, the same numbers on any number of devices.
per-replica: each device normalises by its own slice; running statistics are the devices' mean."""


@dataclass(frozen=True)
class Compute:
    """How a training state computes, in no framework's terms.

    `dtype`: of weights and optimizer, one of DTYPES. `precision`: a value of PRECISIONS. `mode`: of
    the framework's MODES, None for its usual one. `device`: cpu, gpu or auto. `devices`: how many
    of them. `batch_norm`: one of BATCH_NORMS. `fast`: with what `fast.py` replaces.
    """

    dtype: str = "float32"
    precision: str = "float32"
    mode: str | None = None
    device: str = "cpu"
    devices: int = 1
    batch_norm: str = "global"
    fast: bool = True


def resolve(
    compute: Compute, spec: SystemSpec, *, modes: tuple[str, ...], has_gpu: bool, gpu_mode: str = ""
) -> Compute:
    """Return `compute` with device cpu or gpu, and with a mode.

    `modes` are the framework's, its usual one first; `gpu_mode` is that of one GPU, if it is
    another. Raises ValueError for what is unknown or cannot be had.
    """
    check_replicas(spec, compute.devices, compute.batch_norm)
    if spec.architecture == "custom":
        raise ValueError(
            f"{spec.name} is a system of a file, which only the reference and adapters of one's "
            f"own compute; expected one of {', '.join(SYSTEMS)}"
        )
    check_choice("dtype", compute.dtype, DTYPES)
    on_gpu = uses_gpu(compute.device, has_gpu)
    _check_precision(compute, spec, on_gpu)
    usual = gpu_mode if gpu_mode and on_gpu and compute.devices == 1 else modes[0]
    mode = check_choice("mode", compute.mode or usual, modes)
    return replace(compute, device="gpu" if on_gpu else "cpu", mode=mode)


def uses_gpu(device: str, has_gpu: bool) -> bool:
    """Whether "cpu", "gpu" or "auto" is a GPU; a missing one is a ValueError."""
    check_choice("device", device, ("auto", "cpu", "gpu"))
    if device == "gpu" and not has_gpu:
        raise ValueError("device gpu was asked for, but this framework sees none; use --device cpu")
    return has_gpu and device != "cpu"


def _check_precision(compute: Compute, spec: SystemSpec, on_gpu: bool) -> None:
    precision = check_choice("precision", compute.precision, PRECISIONS.values())
    if precision != "float32" and compute.dtype != "float32":
        raise ValueError(f"precision {precision} needs dtype float32, received {compute.dtype}")
    if precision == "tf32" and not on_gpu:
        raise ValueError("precision tf32 exists on GPUs only; expected float32 or bfloat16")
    if precision == "bfloat16" and spec.loss == "bce_probs":
        raise ValueError(
            "bce_probs needs probabilities near 1, which bfloat16 rounds to 1; "
            "expected precision float32, or another loss such as bce"
        )


def check_replicas(spec: SystemSpec, devices: int, batch_norm: str) -> None:
    """Raise ValueError unless the system's batches can be trained on so many devices."""
    if devices < 1:
        raise ValueError(f"--devices must be at least 1, received {devices}")
    check_choice("--batch-norm", batch_norm, BATCH_NORMS)
    if spec.batch_size % devices:
        raise ValueError(f"--batch-size {spec.batch_size} is no multiple of --devices {devices}")
    if batch_norm == "per-replica" and spec.batch_size < 2 * devices:
        raise ValueError(
            f"--batch-norm per-replica needs 2 images on each device, because batch normalisation "
            f"needs a variance; --batch-size {spec.batch_size} on --devices {devices} leaves 1"
        )


def require_devices(framework: str, devices: int, found: int, kind: str = "gpu") -> None:
    """Raise ValueError if a framework sees fewer devices of a kind than were asked for."""
    if devices > found:
        raise ValueError(
            f"--devices {devices} was asked for, but {framework} sees {found} {kind.upper()}"
            f"{'' if found == 1 else 's'}; use --devices {max(found, 1)}"
            f"{'' if kind == 'cpu' else ' or --device cpu'}"
        )


def rows_of_replica(array: np.ndarray, batches: int, devices: int, replica: int) -> np.ndarray:
    """Return one device's rows of `batches` batches that lie one after another in `array`.

    Of each batch of B rows, those from replica · B/devices on, B/devices of them. Raises
    ValueError if B is not a multiple of `devices`.

    >>> rows_of_replica(np.arange(8), batches=2, devices=2, replica=1)
    array([2, 3, 6, 7])
    """
    if len(array) % (batches * devices):
        raise ValueError(f"{len(array)} rows are not {batches} batches on {devices} devices")
    parts = array.reshape(batches, devices, -1, *array.shape[1:])[:, replica]
    return parts.reshape(-1, *array.shape[1:])
