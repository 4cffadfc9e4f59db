"""The document of a run: raw rows, what they add up to, and the file they go to."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.flops import flops_per_image
from benchmarks.statistics import bootstrap_interval, median_of_rounds, quantiles
from shared.spec import SystemSpec

SCHEMA_VERSION = 1


def workload(spec: SystemSpec, dtype: str) -> dict[str, Any]:
    """Return what one step is, and its operations per image."""
    return {
        "system": spec.name,
        "loss": spec.loss,
        "batch_size": spec.batch_size,
        "width": spec.width,
        "dtype": dtype,
        "flops_per_image": flops_per_image(spec),
        "flops_source": "analytic",
    }


def summarise(
    rows: Sequence[dict[str, Any]],
    framework: str,
    workload: dict[str, Any],
    peak: dict[str, Any] | None,
    seed: int,
) -> dict[str, Any]:
    """Return a framework's line of the table from its rows; no numbers unless all rows are ok.

    Rates are images per second, times milliseconds, memory bytes.
    """
    own = [row for row in rows if row["framework"] == framework]
    failed = [row for row in own if row["status"] != "ok"]
    summary: dict[str, Any] = {
        "framework": framework,
        "status": failed[0]["status"] if failed else "ok",
        "error": failed[0]["error"] if failed else None,
        "results": None,
    }
    if not failed:
        summary["results"] = _results(own, workload, peak, seed)
    return summary


def _results(
    rows: Sequence[dict[str, Any]],
    workload: dict[str, Any],
    peak: dict[str, Any] | None,
    seed: int,
) -> dict[str, Any]:
    rates = [
        [1e3 * workload["batch_size"] * w["steps"] / w["ms"] for w in row["windows"]]
        for row in rows
    ]
    flops_per_second = median_of_rounds(rates) * workload["flops_per_image"]
    on_gpu = rows[0]["settings"]["platform"] == "gpu"
    memory = "peak_device_bytes" if on_gpu else "peak_resident_bytes"
    compile_ms = [row["phases_ms"]["compile_first_step"] for row in rows]
    return {
        "images_per_second": _rate(rates, seed),
        "step_ms": _latency([ms for row in rows for ms in row["latency_ms"]]),
        "percent_of_gemm_peak": (
            1e-7 * flops_per_second / peak["gflops_per_second"] if peak else None
        ),
        "compile_ms": quantiles(compile_ms, (0.5,))[0],
        "peak_memory_bytes": max(row["memory"][memory] for row in rows),
        "warm_up_settled": all(row["warm_up"]["settled"] for row in rows),
    }


def _rate(rounds: Sequence[Sequence[float]], seed: int) -> dict[str, Any]:
    every_rate = [rate for rates in rounds for rate in rates]
    return {
        "median": median_of_rounds(rounds),
        "quartiles": quantiles(every_rate, (0.25, 0.75)),
        "interval_95": list(bootstrap_interval(rounds, seed)),
        "rounds": len(rounds),
        "windows": len(every_rate),
    }


def _latency(single_steps: Sequence[float]) -> dict[str, Any]:
    p5, p50, p95 = quantiles(single_steps, (0.05, 0.5, 0.95))
    return {"p5": p5, "p50": p50, "p95": p95, "steps": len(single_steps)}


def check_writable(path: Path) -> None:
    """Raise OSError unless `write_json` could write there now; leaves nothing behind."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected the name of a file")
    with tempfile.NamedTemporaryFile(dir=path.absolute().parent):
        pass


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document in one piece: a reader sees the old file or the new one, never a part."""
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.absolute().parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)  # a temporary file is readable by its owner only
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
