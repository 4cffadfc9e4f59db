"""The least time of a step: what it computes and moves, over the best rates seen in the run.

A step cannot be faster than its operations at the peak, nor than its bytes at the bandwidth. The
larger of the two times is the limit (Williams, Waterman, Patterson 2009, "Roofline"). Exchanges
between devices are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.show.verdict import short


@dataclass(frozen=True)
class Roofline:
    """A step's operations and bytes on all devices, and the rates of all of them together.

    `peak` is in GFLOP/s, `bandwidth` in GB/s; None for what was not measured.
    """

    operations: float
    moved_bytes: float | None
    peak: float | None
    bandwidth: float | None

    @property
    def compute_seconds(self) -> float | None:
        """The time of the operations at the peak."""
        return 1e-9 * self.operations / self.peak if self.peak else None

    @property
    def memory_seconds(self) -> float | None:
        """The time of the bytes at the bandwidth."""
        if not self.bandwidth or self.moved_bytes is None:
            return None
        return 1e-9 * self.moved_bytes / self.bandwidth

    @property
    def seconds(self) -> float | None:
        """The least time of a step; None where one of the two times is missing."""
        compute, memory = self.compute_seconds, self.memory_seconds
        return None if compute is None or memory is None else max(compute, memory)

    def to_dict(self) -> dict[str, Any] | None:
        """Return what a summary says of it, in milliseconds; None where a time is missing."""
        compute, memory = self.compute_seconds, self.memory_seconds
        if compute is None or memory is None:
            return None
        return {
            "limit": "compute" if compute >= memory else "memory",
            "compute_ms": 1e3 * compute,
            "memory_ms": 1e3 * memory,
            "bytes_per_step": self.moved_bytes,
        }


def of(
    document: Mapping[str, Any], configuration: Mapping[str, Any], batch_size: int | None = None
) -> Roofline:
    """Return the roofline of a configuration of a document, or of it at another batch size.

    Each device has a part of the batch, all weights, and an Adam of its own. On GPUs each brings
    its own rates; CPU devices share those of the cores.
    """
    work, devices = document["workload"], configuration.get("devices", 1)
    batch_size = batch_size or configuration["batch_size"]
    moved = work.get("bytes_per_step", {}).get(configuration["precision"])
    factor = devices if document["requested"]["device"] == "gpu" else 1
    peak = best_peak(document, configuration)
    bandwidth = best_bandwidth(document, configuration)
    return Roofline(
        operations=batch_size * work["flops_per_image"],
        moved_bytes=moved and devices * moved["fixed"] + batch_size * moved["per_image"],
        peak=peak and factor * peak,
        bandwidth=bandwidth and factor * bandwidth,
    )


def best_peak(document: Mapping[str, Any], configuration: Mapping[str, Any]) -> float | None:
    """Return the best GFLOP/s of anything in the run with this precision and these threads."""
    kind = (configuration["precision"], configuration["threads"])
    rates = [
        peak["gflops_per_second"]
        for peak in document["peaks"]
        if (peak["precision"], peak["threads"]) == kind
    ]
    return max(rates, default=None)


def best_bandwidth(document: Mapping[str, Any], configuration: Mapping[str, Any]) -> float | None:
    """Return the best GB/s of anything in the run with these threads, whatever the precision."""
    rates = [
        bandwidth["gbytes_per_second"]
        for bandwidth in document.get("bandwidths", ())
        if bandwidth["threads"] == configuration["threads"]
    ]
    return max(rates, default=None)


def lines(document: Mapping[str, Any]) -> list[str]:
    """Return which limit holds, with its figures: a line for each kind of step measured."""
    found: dict[str, None] = {}  # once for all frameworks, in the order of the configurations
    results = {s["configuration"]: s["results"] for s in document["summary"]}
    for configuration in document["configurations"]:
        limits = (results[configuration["id"]] or {}).get("roofline")
        if limits:
            found[_line(configuration, limits, of(document, configuration))] = None
    return list(found)


def _line(configuration: Mapping[str, Any], limits: Mapping[str, Any], roofline: Roofline) -> str:
    devices = configuration.get("devices", 1)
    kind = f"{configuration['precision']}, batch {configuration['batch_size']}, "
    kind += f"threads {configuration['threads']}" + (f", {devices} devices" if devices > 1 else "")
    return (
        f"Roofline of {kind}: {limits['limit']}. "
        f"{_figure(1e-9 * roofline.operations)} GFLOP at {_figure(roofline.peak)} GFLOP/s take "
        f"{short(limits['compute_ms'])} ms, {_figure(1e-9 * limits['bytes_per_step'])} GB at "
        f"{_figure(roofline.bandwidth)} GB/s {short(limits['memory_ms'])} ms"
    )


def _figure(value: float | None) -> str:
    """Return a rate or an amount, three digits of it; what is below a hundredth, too."""
    return f"{value:,.0f}" if value and value >= 100 else f"{value:.3g}"
