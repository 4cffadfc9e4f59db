"""The precisions in which the implementations compute; weights and Adam stay in float32.

float32: every product in float32. tf32: convolutions and matrix products of an NVIDIA GPU with 10
bits of mantissa. bfloat16: activations and products with 8 bits, batch statistics, losses, weights
and optimizer in float32.
"""

from __future__ import annotations

from shared.spec.systems import SystemSpec

PRECISIONS = ("float32", "tf32", "bfloat16")


def check_precision(precision: str, spec: SystemSpec, *, dtype: str, on_gpu: bool) -> None:
    """Raise ValueError for a precision that is unknown or cannot be had for this training state."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; expected {', '.join(PRECISIONS)}")
    if precision != "float32" and dtype != "float32":
        raise ValueError(
            f"precision {precision} computes with float32 weights, received dtype {dtype}"
        )
    if precision == "tf32" and not on_gpu:
        raise ValueError("precision tf32 exists on GPUs only; expected float32 or bfloat16")
    if precision == "bfloat16" and spec.loss == "bce_probs":
        raise ValueError(
            "bce_probs needs probabilities near 1, which bfloat16 rounds to 1; "
            "expected precision float32, or another loss such as bce"
        )


def check_mode(mode: str, modes: tuple[str, ...]) -> None:
    """Raise ValueError for a mode that a framework does not have."""
    if mode not in modes:
        raise ValueError(f"unknown mode {mode!r}; expected {' or '.join(modes)}")
