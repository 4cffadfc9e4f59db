"""The document of a run as it grows: header, then rows, then what they add up to."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from typing import Any

from benchmarks.document import ranking, roofline
from benchmarks.document import rows as results
from benchmarks.plan import host
from benchmarks.plan.configuration import Configuration, labels
from benchmarks.plan.rounds import Plan


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
        "bandwidths": [],
        "loading": None,
        "rows": [],
    }


def conclude(plan: Plan, document: dict[str, Any]) -> None:
    """Add the rates that the workers saw, the summary, the groups and their ratios."""
    rows, names = document["rows"], labels_of(plan)
    document["peaks"] += _peaks_of_workers(plan, document)
    document["bandwidths"] += _bandwidths_of_workers(plan, document)
    document["summary"] = [
        results.summarise(rows, c, names[c.id], roofline.of(document, c.to_dict()), plan.seed)
        for c in plan.configurations
    ]
    summaries = {summary["configuration"]: summary for summary in document["summary"]}
    groups = ranking.matched_groups(plan.configurations, summaries, rows, plan.seed)
    document["groups"] = groups
    document["best"] = ranking.best_of_each(plan.configurations, summaries)
    document["noise_floor"] = ranking.noise_floor(groups)


def _peaks_of_workers(plan: Plan, document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the fastest matrix products that any worker of a precision and threads has seen."""
    fastest: dict[tuple[str, int], dict[str, Any]] = {}
    for c, row in _whole(plan, document):
        rate, key = row["peak_gflops_per_second"], (c.precision, c.threads)
        if rate and rate > fastest.get(key, {"gflops_per_second": 0.0})["gflops_per_second"]:
            fastest[key] = {
                "method": f"matrix products of {c.framework}",
                "precision": c.precision,
                "threads": c.threads,
                "gflops_per_second": rate,
            }
    return list(fastest.values())


def _bandwidths_of_workers(plan: Plan, document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the best bandwidth that any worker with so many threads has seen."""
    best: dict[int, dict[str, Any]] = {}
    for c, row in _whole(plan, document):
        rate = row["bandwidth_gbytes_per_second"]
        if rate and rate > best.get(c.threads, {"gbytes_per_second": 0.0})["gbytes_per_second"]:
            best[c.threads] = {
                "method": f"additions in place of {c.framework}",
                "threads": c.threads,
                "gbytes_per_second": rate,
            }
    return list(best.values())


def _whole(plan: Plan, document: dict[str, Any]) -> Iterator[tuple[Configuration, dict[str, Any]]]:
    """Yield the rows of processes that have all the threads, with their configurations.

    One that has a part of them knows a part of the rates.
    """
    by_id = {c.id: c for c in plan.configurations}
    for row in document["rows"]:
        c = by_id[row["configuration"]]
        if c.devices == 1 or plan.device == "gpu":
            yield c, row
