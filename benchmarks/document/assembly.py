"""The document of a run as it grows: header, then rows, then what they add up to."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any

from benchmarks.document import costs, ranking
from benchmarks.document.intervals import (
    bootstrap_interval,
    median_of_rounds,
    outliers,
    quantiles,
    rates_of,
)
from benchmarks.document.roofline import Roofline, roofline_of
from benchmarks.document.stored import SCHEMA_VERSION
from benchmarks.plan import host
from benchmarks.plan.configuration import DTYPE, Configuration, Plan

Rows = Sequence[dict[str, Any]]


def header(plan: Plan, command: str) -> dict[str, Any]:
    """Return the document with everything that is known before the first worker starts."""
    names = plan.labels
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "git": host.git_state(),
        "seed": plan.seed,
        "interrupted": False,
        "order": [[configuration.id, number] for configuration, number in plan.order],
        "host": host.describe(),
        "requested": dataclasses.asdict(plan),
        "workload": costs.workload(plan.spec(plan.batch_sizes[0]), DTYPE),
        "configurations": [
            {"id": c.id, "label": names[c.id], **dataclasses.asdict(c)} for c in plan.configurations
        ],
        "peaks": [],
        "bandwidths": [],
        "loading": None,
        "rows": [],
    }


def conclude(plan: Plan, document: dict[str, Any]) -> None:
    """Add the rates that the workers saw, the summary, the groups and their ratios."""
    rows, configurations = document["rows"], plan.configurations
    _add_rates_of_workers(plan, document)
    document["summary"] = [_summary(plan, document, c) for c in configurations]
    summaries = {summary["configuration"]: summary for summary in document["summary"]}
    document["groups"] = ranking.matched_groups(configurations, summaries, rows, plan.seed)
    document["best"] = ranking.best_of_each(configurations, summaries)
    document["noise_floor"] = ranking.noise_floor(document["groups"])


def _add_rates_of_workers(plan: Plan, document: dict[str, Any]) -> None:
    """Add the fastest products of each precision and threads, and the best bandwidth of threads.

    Of processes that have all the threads only: others know a share of the rates.
    """
    by_id = {c.id: c for c in plan.configurations if c.devices == 1 or plan.device == "gpu"}
    seen = [(by_id[r["configuration"]], r) for r in document["rows"] if r["configuration"] in by_id]
    peaks = [
        {
            "method": f"matrix products of {c.framework}",
            "precision": c.precision,
            "threads": c.threads,
            "gflops_per_second": row["peak_gflops_per_second"],
        }
        for c, row in seen
    ]
    bandwidths = [
        {
            "method": f"additions in place of {c.framework}",
            "threads": c.threads,
            "gbytes_per_second": row["bandwidth_gbytes_per_second"],
        }
        for c, row in seen
    ]
    document["peaks"] += _best(peaks, "gflops_per_second", "precision", "threads")
    document["bandwidths"] += _best(bandwidths, "gbytes_per_second", "threads")


def _best(entries: Rows, rate: str, *kind: str) -> list[dict[str, Any]]:
    """Return the entry of each kind with the highest rate; entries may have none."""
    best: dict[tuple, dict[str, Any]] = {}
    for entry in entries:
        key = tuple(entry[name] for name in kind)
        if entry[rate] and (key not in best or entry[rate] > best[key][rate]):
            best[key] = entry
    return list(best.values())


def _summary(plan: Plan, document: dict[str, Any], configuration: Configuration) -> dict[str, Any]:
    """Return a configuration's line of the table; no numbers unless all its rows are ok.

    Rates are images per second, times milliseconds, memory bytes.
    """
    rows = [row for row in document["rows"] if row["configuration"] == configuration.id]
    failed = [row for row in rows if row["status"] != "ok"]
    summary: dict[str, Any] = {
        "configuration": configuration.id,
        "label": plan.labels[configuration.id],
        "status": failed[0]["status"] if failed else "ok",
        "error": failed[0]["error"] if failed else None,
        "settings": rows[0]["settings"] if rows and not failed else None,
        "results": None,
    }
    if not rows:
        return summary | {"status": "not_run", "error": "the run ended before its turn"}
    if not failed:
        roofline = roofline_of(document, dataclasses.asdict(configuration))
        summary["results"] = _results(rows, configuration.batch_size, roofline, plan.seed)
    return summary


def _results(rows: Rows, batch_size: int, roofline: Roofline, seed: int) -> dict[str, Any]:
    rounds = [rates_of(row, batch_size) for row in rows]
    rates = [rate for own in rounds for rate in own]
    single_steps = [ms for row in rows for ms in row["latency_ms"]]
    p5, p50, p95 = quantiles(single_steps, (0.05, 0.5, 0.95))
    seconds = batch_size / median_of_rounds(rounds)
    on_gpu = rows[0]["settings"]["platform"] == "gpu"
    memory = "peak_device_bytes" if on_gpu else "peak_resident_bytes"
    phases = {
        name: quantiles([row["phases_ms"][name] for row in rows], (0.5,))[0]
        for name in rows[0]["phases_ms"]
    }
    found = {
        "images_per_second": {
            "median": median_of_rounds(rounds),
            "quartiles": quantiles(rates, (0.25, 0.75)),
            "interval_95": list(bootstrap_interval(rounds, seed)),
            "rounds": len(rounds),
            "windows": len(rates),
            "outliers": len(outliers(rates)),
        },
        "step_ms": {
            "p5": p5,
            "p50": p50,
            "p95": p95,
            "steps": len(single_steps),
            "outliers": len(outliers(single_steps)),
        },
        "percent_of_gemm_peak": _percent(roofline.compute_seconds, seconds),
        "percent_of_roofline": _percent(roofline.seconds, seconds),
        "roofline": roofline.to_dict(),
        "phases_ms": phases,
        "compile_ms": phases["compile_first_step"],
        "peak_memory_bytes": max(row["memory"][memory] for row in rows),
        "warm_up_settled": all(row["warm_up"]["settled"] for row in rows),
    }
    if "communication_ms" in rows[0]:
        found["communication_ms"] = quantiles([row["communication_ms"] for row in rows], (0.5,))[0]
    return found


def _percent(least: float | None, seconds: float) -> float | None:
    return None if least is None else 100 * least / seconds
