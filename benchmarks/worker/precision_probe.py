"""Which precision an operation really has, by its error, whatever the settings are.

The relative L2 error of a sum of random products is that of rounding its factors. With u = 2⁻²⁴
(float32) it is 1e-7 to 1e-6, because the sum is rounded as well; with u = 2⁻¹¹ (TF32 keeps ten
bits of mantissa after the leading one) 2.9e-4, with u = 2⁻⁹ at most (bfloat16 keeps seven) 2.4e-3.
The limits are the geometric means between neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.plan.configuration import Request
from benchmarks.worker.gate import ARRAY_BOUND
from benchmarks.worker.workloads import Operation
from shared.reference.comparison import relative_l2

FLOAT32_BELOW = 1.7e-5
TF32_BELOW = 8e-4
# Large enough that a GPU takes its tensor cores, small enough for NumPy: sums of 512 and of 1152.
PRODUCT_SIZES = (256, 512, 256)
IMAGES = (4, 8, 8, 128)
FEATURES = 64


def probe(operations: dict[str, Operation]) -> dict[str, float]:
    """Return the relative L2 error of the matrix product and of the convolution."""
    draw = np.random.default_rng(0)
    rows, inner, columns = PRODUCT_SIZES
    factors = {
        "matmul": ((rows, inner), (inner, columns)),
        "convolution": (IMAGES, (3, 3, IMAGES[-1], FEATURES)),
    }
    truths: dict[str, Operation] = {"matmul": np.matmul, "convolution": _convolution}
    errors = {}
    for name, shapes in factors.items():
        left, right = (draw.standard_normal(shape).astype(np.float32) for shape in shapes)
        expected = truths[name](left.astype(np.float64), right.astype(np.float64))
        errors[name] = relative_l2(operations[name](left, right), expected)
    return errors


def precision_of(error: float) -> str:
    """Return the precision that makes such an error: float32, tf32 or bfloat16 (or worse)."""
    if error < FLOAT32_BELOW:
        return "float32"
    return "tf32" if error < TF32_BELOW else "bfloat16"


def effective_precision(
    request: Request, check: Mapping[str, Any], errors: Mapping[str, float]
) -> str:
    """Return the precision of a step by the gate's comparison and by the errors of the probe.

    A step that is further from the truth than float32 can be is bfloat16 where that was asked for.
    The gate's narrow networks may be too small for a GPU to use TF32 in, so plain operations decide
    on the others.
    """
    if request.configuration.precision == "bfloat16":
        exact = check["worst_array"]["difference"] <= ARRAY_BOUND
        return "float32" if exact else "bfloat16"
    found = {precision_of(error) for error in errors.values()}
    return found.pop() if len(found) == 1 else "mixed"


def precision_problem(
    request: Request, check: Mapping[str, Any], errors: Mapping[str, float]
) -> str | None:
    """Return one line if a step has another precision than the request wants, else None."""
    asked, effective = request.configuration.precision, effective_precision(request, check, errors)
    if effective == asked:
        return None
    if asked == "bfloat16":
        worst = check["worst_array"]["difference"]
        return f"bfloat16 was asked for, but a step agrees to {worst:.0e}, as float32 does"
    wrong = {name: error for name, error in errors.items() if precision_of(error) != asked}
    found = ", ".join(f"{n} {e:.0e} ({precision_of(e)})" for n, e in wrong.items())
    return f"{asked} was asked for, but the errors of the probe show otherwise: {found}"


def _convolution(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return a 3x3 convolution with a border of zeros; images NHWC, kernel HWIO."""
    _, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    products = [
        padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
    ]
    return np.sum(products, axis=0)
