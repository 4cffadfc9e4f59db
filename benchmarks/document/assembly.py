"""The document of a run as it grows: header, then rows, then what they add up to.

Only rows whose settings, as they were read back, are the same are in one group and are compared:
device, precision as it was measured, batch, threads, where batches come from, how many devices.
How a framework runs its step is not one of them: that is what is compared.
"""

import dataclasses
import datetime
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.document import intervals
from benchmarks.document.intervals import rates_of
from benchmarks.document.roofline import roofline_of
from benchmarks.document.stored import SCHEMA_VERSION
from benchmarks.plan import costs, host
from benchmarks.plan.configuration import DTYPE, Configuration, Plan

Rows = Sequence[dict[str, Any]]


def header(plan: Plan, command: str) -> dict[str, Any]:
    """Return the document with everything that is known before the first worker starts."""
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
            {"id": c.id, "label": plan.labels[c.id], **dataclasses.asdict(c)}
            for c in plan.configurations
        ],
        "rows": [],
    }


def conclude(plan: Plan, document: dict[str, Any]) -> None:
    """Add the summary, the groups and their ratios."""
    document["summary"] = [_summary(plan, document, c) for c in plan.configurations]
    found = {s["configuration"]: s for s in document["summary"] if s["results"]}
    settings = {
        c: _settings(c, found[c.id]["settings"]) for c in plan.configurations if c.id in found
    }
    fastest_first = sorted(
        (c for c in settings if not c.again),
        key=lambda c: -found[c.id]["results"]["images_per_second"]["median"],
    )
    document["groups"] = []
    for common in map(dict, dict.fromkeys(tuple(own.items()) for own in settings.values())):
        members = [c for c, own in settings.items() if own == common]
        ranked = [c for c in fastest_first if c in members]
        ids = {"members": [c.id for c in members], "ranking": [c.id for c in ranked]}
        ratios = _ratios(members, ranked, document["rows"], plan.seed)
        document["groups"].append({"settings": common, **ids, "ratios": ratios})
    best: dict[str, dict[str, Any]] = {}
    for c in fastest_first:
        if c.implementation == "ours":
            best.setdefault(c.framework, {"configuration": c.id, "settings": settings[c]})
    document["best"] = list(best.values())
    # By what fraction two equal configurations may seem to differ.
    again = [r for g in document["groups"] for r in g["ratios"] if r["kind"] == "again"]
    ends = [end for r in again for end in (r["ratio"], *r["interval_95"])]
    document["noise_floor"] = max((max(end, 1 / end) - 1 for end in ends), default=None)


def _summary(plan: Plan, document: dict[str, Any], configuration: Configuration) -> dict[str, Any]:
    """Return a configuration's line of the table; no numbers unless all its rows are ok."""
    rows = [row for row in document["rows"] if row["configuration"] == configuration.id]
    found = {"configuration": configuration.id, "label": plan.labels[configuration.id]}
    nothing = {"settings": None, "results": None}
    if not rows:
        return found | {"status": "not_run", "error": "the run ended before its turn"} | nothing
    for row in rows:
        if row["status"] != "ok":
            return found | {name: row[name] for name in ("status", "error")} | nothing
    results = _results(rows, configuration, document, plan.seed)
    ok = {"status": "ok", "error": None, "settings": rows[0]["settings"], "results": results}
    return found | ok


def _results(
    rows: Rows, configuration: Configuration, document: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Return rates in images per second, times in milliseconds, memory in bytes."""
    rounds = [rates_of(row, configuration.batch_size) for row in rows]
    rates = [rate for own in rounds for rate in own]
    steps = [ms for row in rows for ms in row["latency_ms"]]
    p5, p50, p95 = intervals.quantiles(steps, (0.05, 0.5, 0.95))
    middle, outliers = intervals.median_of_rounds(rounds), len(intervals.outliers(steps))
    roofline = roofline_of(document, dataclasses.asdict(configuration))
    memory = "device" if rows[0]["settings"]["platform"] == "gpu" else "resident"
    phases = {
        name: median([row["phases_ms"][name] for row in rows if name in row["phases_ms"]])
        for name in rows[0]["phases_ms"]
    }

    step_ms = 1e3 * configuration.batch_size / middle
    limits = roofline and {
        "limit": "compute" if roofline.compute_ms >= roofline.memory_ms else "memory",
        "compute_ms": roofline.compute_ms,
        "memory_ms": roofline.memory_ms,
        "bytes_per_step": roofline.moved_bytes,
    }
    found = {
        "images_per_second": {
            "median": middle,
            "quartiles": intervals.quantiles(rates, (0.25, 0.75)),
            "interval_95": list(intervals.bootstrap_interval(rounds, seed)),
            "rounds": len(rounds),
            "windows": len(rates),
            "outliers": len(intervals.outliers(rates)),
        },
        "step_ms": {"p5": p5, "p50": p50, "p95": p95, "steps": len(steps), "outliers": outliers},
        "percent_of_gemm_peak": roofline and 100 * roofline.compute_ms / step_ms,
        "percent_of_roofline": roofline
        and 100 * max(roofline.compute_ms, roofline.memory_ms) / step_ms,
        "roofline": limits,
        "phases_ms": phases,
        "compile_ms": phases["compile_first_step"],
        "peak_memory_bytes": max(row["memory"][f"peak_{memory}_bytes"] for row in rows),
        "warm_up_settled": all(row["warm_up"]["settled"] for row in rows),
    }
    if "communication_ms" in rows[0]:
        found["communication_ms"] = median([row["communication_ms"] for row in rows])
    return found


def _settings(configuration: Configuration, read_back: dict[str, Any]) -> dict[str, Any]:
    """Return what configurations of one group have in common."""
    return {
        **{name: read_back[name] for name in ("platform", "precision", "dtype")},
        "batch_size": configuration.batch_size,
        # Where a framework cannot report them, those that the worker was given.
        "threads": read_back["threads"] or configuration.threads,
        "input": configuration.input,
        "devices": configuration.devices,
    }


def _ratios(
    members: Sequence[Configuration], ranked: Sequence[Configuration], rows: Rows, seed: int
) -> list[dict[str, Any]]:
    """Return every ratio that a reader asks for."""
    plain = [c for c in members if not c.again]
    ours = [c for c in plain if c.implementation == "ours"]
    best = [c for c in ranked if c.implementation == "ours"]
    stock = [c for c in plain if c.implementation == "baseline"]
    twice = {c: dataclasses.replace(c, again=True) for c in plain}
    pairs = [
        *(("fastest", best[0], rival) for rival in best[1:]),
        *(("framework", c, ours[0]) for c in ours[1:]),
        *(("baseline", c, s) for c in ours for s in stock if s.framework == c.framework),
        *(("again", c, other) for c, other in twice.items() if other in members),
    ]
    rates = {
        c: {r["round"]: rates_of(r, c.batch_size) for r in rows if r["configuration"] == c.id}
        for c in members
    }
    found = []
    for kind, above, below in pairs:
        value, *ends, per_round = intervals.paired_ratio(rates[above], rates[below], seed)
        ids = {"kind": kind, "numerator": above.id, "denominator": below.id}
        found.append({**ids, "ratio": value, "interval_95": ends, "per_round": list(per_round)})
    return found
