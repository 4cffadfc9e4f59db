"""The least time of a step: what it computes and moves, over the best rates seen in the run.

The larger of the two times, of the operations at the peak and of the bytes at the bandwidth, is the
limit (Williams, Waterman, Patterson 2009, "Roofline"). Exchanges between devices are not in it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Roofline(NamedTuple):
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
        if not self.moved_bytes or not self.bandwidth:
            return None
        return 1e-9 * self.moved_bytes / self.bandwidth

    @property
    def seconds(self) -> float | None:
        """The least time of a step; None where one of the two times is missing."""
        compute, memory = self.compute_seconds, self.memory_seconds
        return None if compute is None or memory is None else max(compute, memory)

    def to_dict(self) -> dict[str, Any] | None:
        """Return the fields of a summary, in milliseconds; None where a time is missing."""
        compute, memory = self.compute_seconds, self.memory_seconds
        if compute is None or memory is None:
            return None
        return {
            "limit": "compute" if compute >= memory else "memory",
            "compute_ms": 1e3 * compute,
            "memory_ms": 1e3 * memory,
            "bytes_per_step": self.moved_bytes,
        }


def roofline_of(
    document: Mapping[str, Any], configuration: Mapping[str, Any], batch_size: int | None = None
) -> Roofline:
    """Return the roofline of a configuration of a document, or of it at another batch size.

    Each device has its share of the batch, all weights, and its own Adam. On GPUs each brings
    its own rates; CPU devices share those of the cores. The peak is the best GFLOP/s of anything in
    the run with this precision and these threads, the bandwidth the best GB/s with these threads.
    """
    work, devices = document["workload"], configuration.get("devices", 1)
    batch_size = batch_size or configuration["batch_size"]
    moved = work.get("bytes_per_step", {}).get(configuration["precision"])
    factor = devices if document["requested"]["device"] == "gpu" else 1

    def best(place: str, rate: str, *kind: str) -> float | None:
        found = (
            factor * entry[rate]
            for entry in document.get(place, ())
            if all(entry[name] == configuration[name] for name in kind)
        )
        return max(found, default=None)

    return Roofline(
        operations=batch_size * work["flops_per_image"],
        moved_bytes=moved and devices * moved["fixed"] + batch_size * moved["per_image"],
        peak=best("peaks", "gflops_per_second", "precision", "threads"),
        bandwidth=best("bandwidths", "gbytes_per_second", "threads"),
    )
