"""Traps of layouts: kernels turned round or reshaped, axes exchanged, features in another order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from shared.explain.recordings.aligning import KERNELS, Aligned
from shared.explain.recordings.arrangement import Arrangement, orders_of_features
from shared.explain.recordings.evidence import Evidence, named_trap
from shared.explain.recordings.report import Trap


def layout_traps(evidence: Evidence) -> Iterator[Trap]:
    """Yield what the arrangements that fit say about axes, kernels and flattened features."""
    last = max((step for step, _ in evidence.disagreeing), default=-1)
    for (step, name), aligned in evidence.by_name.items():
        chosen = aligned.misplaced or aligned.arrangement
        if chosen is None or not (aligned.fits or aligned.misplaced):
            continue
        is_kernel = name.rsplit("/", 1)[-1] in KERNELS
        if chosen.in_memory:
            yield _reshaped(aligned, is_kernel)
        elif is_kernel and chosen.flipped and step <= last:
            # Right where that side's operation turns it back: something else must disagree too.
            yield named_trap(_kernel_field(name), "as_stored", "flipped", (name,), certain=False)
        elif aligned.misplaced is not None:
            yield _other_axes(aligned, aligned.misplaced, is_kernel)
        elif name.endswith("/input") and aligned.first.array.ndim == 2:
            yield from _flatten_order(evidence, step, name.removesuffix("/input"), chosen)


def _kernel_field(name: str) -> str:
    return "conv_transpose_kernel" if "transpose" in name.lower() else "conv_kernel"


def _reshaped(aligned: Aligned, is_kernel: bool) -> Trap:
    """A tensor whose shape was changed where its axes should have been."""
    where = (aligned.first.name,)
    if is_kernel or aligned.first.array.ndim != 4:
        return Trap(None, None, "its axes in their order", "reshaped instead of transposed", where)
    orders = ("chw", "hwc") if (aligned.second.layout or "").endswith("C") else ("hwc", "chw")
    return dataclasses.replace(named_trap("flatten_order", *orders, where), anchor="reshape-order")


def _other_axes(aligned: Aligned, fits: Arrangement, is_kernel: bool) -> Trap:
    """A tensor whose declared layout is not the one that its values have."""
    where = (aligned.first.name,)
    here, there = aligned.first.layout or "", aligned.second.layout or ""
    # Letter of the first's axis i, where the values say the second's axis fits.axes[i] belongs.
    letters = dict(zip(fits.axes, here, strict=False))
    really = "".join(letters.get(i, "?") for i in range(len(here)))
    swapped = {x for x, y in zip(really, there, strict=False) if x != y}
    if is_kernel and swapped == {"H", "W"} and fits.is_plain:
        return named_trap(_kernel_field(aligned.first.name), "as_stored", "transposed", where)
    return Trap(None, None, f"layout {here}", f"{there}, is {really}", where)


def _flatten_order(
    evidence: Evidence, step: int, layer: str, features: Arrangement
) -> Iterator[Trap]:
    """Features in another order before a kernel whose rows are in the same, or the reverse."""
    names = [f"{layer}/{kernel}" for kernel in KERNELS]
    kernel = next((evidence.by_name[step, n] for n in names if (step, n) in evidence.by_name), None)
    output = step, f"{layer}/output"
    agrees = output in evidence.by_name and output not in evidence.disagreeing
    if kernel is None or kernel.arrangement is None or not kernel.fits or agrees:
        return
    refolds = [fold for fold in (features.refold, kernel.arrangement.refold) if fold is not None]
    if len(refolds) == 1:
        first, second = orders_of_features(refolds[0]) or ("HWC", "CHW")
        where = (f"{layer}/input", kernel.first.name)
        yield named_trap("flatten_order", first.lower(), second.lower(), where)
