"""The least time of a step: what it computes and moves, over the best rates seen in the run.

The larger of the two times, of the operations at the peak and of the bytes at the bandwidth, is the
limit (Williams, Waterman, Patterson 2009, "Roofline"). Exchanges between devices are not in it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Roofline(NamedTuple):
    """A step's operations and bytes on all devices, and the rates of all of them together.

    `peak` is in GFLOP/s, `bandwidth` in GB/s. The times, in milliseconds, are those of the
    operations at the peak and of the bytes at the bandwidth; the larger is the least of a step.
    """

    operations: float
    moved_bytes: float
    peak: float
    bandwidth: float
    compute_ms: float
    memory_ms: float


def roofline_of(document: Mapping[str, Any], configuration: Mapping[str, Any]) -> Roofline | None:
    """Return the roofline of a configuration; with an array of batch sizes, amounts are arrays too.

    Each device has its share of the batch, all weights, and its own Adam. The peak is the best of
    any row with this precision and these threads, the bandwidth the best with these threads; None
    where one was not measured.
    """
    work, devices = document["workload"], configuration.get("devices", 1)
    batch_size = configuration["batch_size"]
    on_gpu = document["requested"]["device"] == "gpu"
    # CPU devices share the rates of the cores, which a process with all threads alone can know.
    whole = {c["id"]: c for c in document["configurations"] if on_gpu or c.get("devices", 1) == 1}

    def best(rate: str, *kind: str) -> float:
        rows = [row for row in document["rows"] if row["configuration"] in whole and row.get(rate)]
        fields = [(row[rate], whole[row["configuration"]]) for row in rows]
        same = (found for found, c in fields if all(c[n] == configuration[n] for n in kind))
        return max(same, default=0.0) * (devices if on_gpu else 1)

    peak = best("peak_gflops_per_second", "precision", "threads")
    bandwidth = best("bandwidth_gbytes_per_second", "threads")
    moved = work.get("bytes_per_step", {}).get(configuration["precision"])
    if not (peak and bandwidth and moved):
        return None
    operations = batch_size * work["flops_per_image"]
    moved_bytes = devices * moved["fixed"] + batch_size * moved["per_image"]
    times = 1e-6 * operations / peak, 1e-6 * moved_bytes / bandwidth
    return Roofline(operations, moved_bytes, peak, bandwidth, *times)
