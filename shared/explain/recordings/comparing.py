"""How far two tensors in the same axes are apart, and where most."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from shared.explain.recordings.aligning import Aligned, Key, have_the_same_letters
from shared.explain.recordings.report import Pair
from shared.explain.recordings.rounding import BOUNDS
from shared.reference.comparison import relative_l2, ulp_error

KERNELS = ("kernel", "weight")


def compare(aligned: Aligned, by_name: Mapping[Key, Aligned]) -> Pair:
    """Return the differences of a pair; `by_name` holds all pairs, of which one may be its kernel.

    A bias that differs counts as agreeing where it is rounding beside the kernel of its layer.
    """
    agrees, notes = aligned.fits, aligned.notes
    if not agrees and _is_rounding_beside_its_kernel(aligned, by_name):
        agrees, notes = True, (*notes, "rounding beside its kernel's")
    return Pair(
        step=aligned.first.step,
        first=aligned.first.name,
        second=aligned.second.name,
        matched_by=aligned.matched_by,
        arrangement=_arrangement_text(aligned),
        dtype=aligned.dtype,
        bound=aligned.bound,
        agrees=agrees,
        notes=notes,
        **_differences(aligned),
    )


def _arrangement_text(aligned: Aligned) -> str:
    a, b, arrangement = aligned.first, aligned.second, aligned.arrangement
    if not have_the_same_letters(a, b) or a.layout == b.layout:
        return "none" if arrangement is None else arrangement.describe()
    text = f"{b.layout} as {a.layout}"
    if arrangement is None or arrangement.is_plain:
        return text
    in_order = dataclasses.replace(arrangement, axes=tuple(range(a.array.ndim)))
    return f"{text}, {in_order.describe()}"


def _differences(aligned: Aligned) -> dict[str, Any]:
    """Return the numbers of a Pair."""
    if aligned.array is None:
        numbers: dict[str, Any] = dict.fromkeys(("relative_l2", "max_abs", "ulp"), math.nan)
        return numbers | {"worst": (), "worst_values": (math.nan, math.nan)}
    x, y = (np.asarray(v, np.float64) for v in (aligned.first.array, aligned.array))
    apart = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
    place = np.unravel_index(np.argmax(np.where(np.isnan(apart), np.inf, apart)), apart.shape)
    worst = tuple(int(i) for i in place)
    values = float(x[worst]), float(y[worst])
    return {
        "relative_l2": relative_l2(y, x) if apart.any() else 0.0,
        "max_abs": float(apart[worst]),
        "ulp": _ulp(*values, aligned.dtype),
        "worst": worst,
        "worst_values": values,
    }


def _ulp(first: float, second: float, dtype: str) -> float:
    truth = Fraction(first) if math.isfinite(first) else first
    return ulp_error(second, truth, dtype if dtype in BOUNDS else "float64")


def _is_rounding_beside_its_kernel(aligned: Aligned, by_name: Mapping[Key, Aligned]) -> bool:
    """Tell whether a bias, which a batch normalisation may take away, differs by its rounding."""
    a = aligned.first
    if "bias" not in a.name or aligned.array is None:
        return False
    beside = [by_name.get((a.step, a.name.replace("bias", kernel))) for kernel in KERNELS]
    kernel = next((x.first.array for x in beside if x is not None), None)
    if kernel is None:
        return False
    apart = np.linalg.norm(np.asarray(aligned.array, np.float64) - a.array)
    return bool(apart <= aligned.bound * np.linalg.norm(kernel))
