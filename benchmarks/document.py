"""The document of a run as it grows: header, then rows, then what they add up to."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

from benchmarks import host, ranking, results
from benchmarks.configuration import Configuration, labels
from benchmarks.plan import Plan


def labels_of(plan: Plan) -> dict[str, str]:
    """Return the short name of every configuration by its id."""
    configurations = plan.configurations
    return {c.id: label for c, label in zip(configurations, labels(configurations), strict=True)}


def header(plan: Plan, command: str) -> dict[str, Any]:
    """Return the document with everything that is known before the first worker starts."""
    requested = dataclasses.asdict(plan)
    requested |= {k: str(v) for k, v in requested.items() if k in ("json", "report", "data") and v}
    requested |= {k: list(v) for k, v in requested.items() if isinstance(v, tuple)}
    names = labels_of(plan)
    request = plan.request(plan.configurations[0], 0, plan.time_budget)
    return {
        "schema_version": results.SCHEMA_VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "git": host.git_state(),
        "seed": plan.seed,
        "interrupted": False,
        "order": [[configuration.id, number] for configuration, number in plan.order],
        "host": host.describe(),
        "requested": requested,
        "workload": results.workload(request.spec, request.dtype),
        "configurations": [
            {"id": c.id, "label": names[c.id], **c.to_dict()} for c in plan.configurations
        ],
        "peaks": [],
        "loading": None,
        "rows": [],
    }


def conclude(plan: Plan, document: dict[str, Any]) -> None:
    """Add the peaks that the workers saw, the summary, the groups and their ratios."""
    rows, names = document["rows"], labels_of(plan)
    document["peaks"] += _peaks_of_workers(plan, document)
    document["summary"] = [
        results.summarise(
            rows,
            c,
            names[c.id],
            document["workload"]["flops_per_image"],
            _best_peak(document, c),
            plan.seed,
        )
        for c in plan.configurations
    ]
    summaries = {summary["configuration"]: summary for summary in document["summary"]}
    groups = ranking.matched_groups(plan.configurations, summaries, rows, plan.seed)
    document["groups"] = groups
    document["best"] = ranking.best_of_each(plan.configurations, summaries)
    document["noise_floor"] = ranking.noise_floor(groups)


def _peaks_of_workers(plan: Plan, document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the fastest matrix products that any worker of a precision and threads has seen."""
    by_id = {c.id: c for c in plan.configurations}
    fastest: dict[tuple[str, int], dict[str, Any]] = {}
    for row in document["rows"]:
        c, rate = by_id[row["configuration"]], row["peak_gflops_per_second"]
        if c.devices > 1 and plan.device == "cpu":
            continue  # a process that has a part of the threads knows a part of the peak
        key = (c.precision, c.threads)
        if rate and rate > fastest.get(key, {"gflops_per_second": 0.0})["gflops_per_second"]:
            fastest[key] = {
                "method": f"matrix products of {c.framework}",
                "precision": c.precision,
                "threads": c.threads,
                "gflops_per_second": rate,
            }
    return list(fastest.values())


def _best_peak(document: dict[str, Any], c: Configuration) -> float | None:
    on_gpu = document["requested"]["device"] == "gpu"
    factor = c.devices if on_gpu else 1  # CPU devices share the cores
    rates = [
        factor * peak["gflops_per_second"]
        for peak in document["peaks"]
        if (peak["precision"], peak["threads"]) == (c.precision, c.threads)
    ]
    return max(rates, default=None)
