"""The document of a run: what its rows add up to, and the file it goes to."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.document import traffic
from benchmarks.document.flops import flops_per_image
from benchmarks.document.intervals import bootstrap_interval, median_of_rounds, outliers, quantiles
from benchmarks.document.roofline import Roofline
from benchmarks.plan.configuration import PRECISIONS, Configuration
from shared.spec import SystemSpec

SCHEMA_VERSION = 2

Rows = Sequence[dict[str, Any]]


def workload(spec: SystemSpec, dtype: str) -> dict[str, Any]:
    """Return what one step is, whatever its batch, with its operations and bytes."""
    return {
        "system": spec.name,
        "loss": spec.loss,
        "width": spec.width,
        "dtype": dtype,
        "flops_per_image": flops_per_image(spec),
        "flops_source": "analytic",
        "bytes_per_step": {
            precision: {
                "fixed": traffic.fixed_bytes(spec),
                "per_image": traffic.bytes_per_image(spec, precision),
            }
            for precision in PRECISIONS.values()
        },
    }


def rates_of(row: dict[str, Any], batch_size: int) -> list[float]:
    """Return the images per second of each window of a row."""
    return [1e3 * batch_size * window["steps"] / window["ms"] for window in row["windows"]]


def summarise(
    rows: Rows,
    configuration: Configuration,
    label: str,
    roofline: Roofline,
    seed: int,
) -> dict[str, Any]:
    """Return a configuration's line of the table; no numbers unless all its rows are ok.

    Rates are images per second, times milliseconds, memory bytes.
    """
    own = [row for row in rows if row["configuration"] == configuration.id]
    failed = [row for row in own if row["status"] != "ok"]
    summary: dict[str, Any] = {
        "configuration": configuration.id,
        "label": label,
        "status": failed[0]["status"] if failed else "ok",
        "error": failed[0]["error"] if failed else None,
        "settings": own[0]["settings"] if own and not failed else None,
        "results": None,
    }
    if not own:
        return summary | {"status": "not_run", "error": "the run ended before its turn"}
    if not failed:
        summary["results"] = _results(own, configuration.batch_size, roofline, seed)
    return summary


def _results(rows: Rows, batch_size: int, roofline: Roofline, seed: int) -> dict[str, Any]:
    rates = [rates_of(row, batch_size) for row in rows]
    seconds = batch_size / median_of_rounds(rates)
    on_gpu = rows[0]["settings"]["platform"] == "gpu"
    memory = "peak_device_bytes" if on_gpu else "peak_resident_bytes"
    found = {
        "images_per_second": _rate(rates, seed),
        "step_ms": _latency([ms for row in rows for ms in row["latency_ms"]]),
        "percent_of_gemm_peak": _percent(roofline.compute_seconds, seconds),
        "percent_of_roofline": _percent(roofline.seconds, seconds),
        "roofline": roofline.to_dict(),
        "phases_ms": {name: _median_phase(rows, name) for name in rows[0]["phases_ms"]},
        "compile_ms": _median_phase(rows, "compile_first_step"),
        "peak_memory_bytes": max(row["memory"][memory] for row in rows),
        "warm_up_settled": all(row["warm_up"]["settled"] for row in rows),
    }
    if "communication_ms" in rows[0]:
        times = [row["communication_ms"] for row in rows]
        found["communication_ms"] = quantiles(times, (0.5,))[0]
    return found


def _percent(least: float | None, seconds: float) -> float | None:
    return None if least is None else 100 * least / seconds


def _median_phase(rows: Rows, name: str) -> float:
    return quantiles([row["phases_ms"][name] for row in rows], (0.5,))[0]


def _rate(rounds: Sequence[Sequence[float]], seed: int) -> dict[str, Any]:
    every_rate = [rate for rates in rounds for rate in rates]
    return {
        "median": median_of_rounds(rounds),
        "quartiles": quantiles(every_rate, (0.25, 0.75)),
        "interval_95": list(bootstrap_interval(rounds, seed)),
        "rounds": len(rounds),
        "windows": len(every_rate),
        "outliers": len(outliers(every_rate)),
    }


def _latency(single_steps: Sequence[float]) -> dict[str, Any]:
    p5, p50, p95 = quantiles(single_steps, (0.05, 0.5, 0.95))
    return {
        "p5": p5,
        "p50": p50,
        "p95": p95,
        "steps": len(single_steps),
        "outliers": len(outliers(single_steps)),
    }


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
