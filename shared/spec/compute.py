"""How a training state computes: what may be chosen beside the system, and what cannot be had.

Precisions: float32 computes every product in float32. tf32: convolutions and matrix products of an
NVIDIA GPU with 10 bits of mantissa. bfloat16: activations and products with 8 bits; batch
statistics, losses, weights and optimizer stay in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shared.spec.replicas import check_replicas
from shared.spec.systems import SystemSpec

__all__ = ["DTYPES", "PRECISIONS", "Compute", "resolve", "uses_gpu"]

DTYPES = ("float32", "float64")
PRECISIONS = ("float32", "tf32", "bfloat16")


@dataclass(frozen=True)
class Compute:
    """How a training state computes, in no framework's terms.

    `dtype`: of weights and optimizer, one of DTYPES. `precision`: one of PRECISIONS. `mode`: one of
    the framework's MODES, None for its usual one. `device`: cpu, gpu or auto. `devices` and
    `batch_norm`: see `shared.spec.replicas`. `fast`: with what the framework's `fast.py` replaces.
    """

    dtype: str = "float32"
    precision: str = "float32"
    mode: str | None = None
    device: str = "cpu"
    devices: int = 1
    batch_norm: str = "global"
    fast: bool = True


def resolve(
    compute: Compute,
    spec: SystemSpec,
    *,
    modes: tuple[str, ...],
    has_gpu: bool,
    gpu_mode: str | None = None,
) -> Compute:
    """Return `compute` with device cpu or gpu, and with a mode.

    `modes` are the framework's, its usual one first; `gpu_mode` is that of one GPU, if it is
    another. Raises ValueError for what is unknown or cannot be had.
    """
    check_replicas(spec, compute.devices, compute.batch_norm)
    if compute.dtype not in DTYPES:
        raise ValueError(f"unknown dtype {compute.dtype!r}; expected one of {', '.join(DTYPES)}")
    on_gpu = uses_gpu(compute.device, has_gpu)
    _check_precision(compute, spec, on_gpu)
    if compute.mode not in (None, *modes):
        raise ValueError(f"unknown mode {compute.mode!r}; expected {' or '.join(modes)}")
    usual = gpu_mode if gpu_mode and on_gpu and compute.devices == 1 else modes[0]
    return replace(compute, device="gpu" if on_gpu else "cpu", mode=compute.mode or usual)


def uses_gpu(device: str, has_gpu: bool) -> bool:
    """Whether "cpu", "gpu" or "auto" is a GPU; a missing one is a ValueError."""
    if device not in ("auto", "cpu", "gpu"):
        raise ValueError(f"unknown device {device!r}; expected auto, cpu or gpu")
    if device == "gpu" and not has_gpu:
        raise ValueError("device gpu was asked for, but this framework sees none; use --device cpu")
    return has_gpu and device != "cpu"


def _check_precision(compute: Compute, spec: SystemSpec, on_gpu: bool) -> None:
    precision = compute.precision
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; expected {', '.join(PRECISIONS)}")
    if precision != "float32" and compute.dtype != "float32":
        raise ValueError(
            f"precision {precision} computes with float32 weights, received dtype {compute.dtype}"
        )
    if precision == "tf32" and not on_gpu:
        raise ValueError("precision tf32 exists on GPUs only; expected float32 or bfloat16")
    if precision == "bfloat16" and spec.loss == "bce_probs":
        raise ValueError(
            "bce_probs needs probabilities near 1, which bfloat16 rounds to 1; "
            "expected precision float32, or another loss such as bce"
        )
