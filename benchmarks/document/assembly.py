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

from benchmarks.document.intervals import (
    bootstrap_interval,
    median_of_rounds,
    outliers,
    paired_ratio,
    quantiles,
    rates_of,
)
from benchmarks.document.roofline import Roofline, roofline_of
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
        "peaks": [],
        "bandwidths": [],
        "loading": None,
        "rows": [],
    }


def conclude(plan: Plan, document: dict[str, Any]) -> None:
    """Add the rates that the workers saw, the summary, the groups and their ratios."""
    _add_rates_of_workers(plan, document)
    summaries = {c.id: _summary(plan, document, c) for c in plan.configurations}
    measured = [c for c in plan.configurations if summaries[c.id]["results"]]
    settings = {c.id: _settings(c, summaries[c.id]["settings"]) for c in measured}
    fastest_first = sorted(
        (c for c in measured if not c.again),
        key=lambda c: -summaries[c.id]["results"]["images_per_second"]["median"],
    )
    matched: dict[tuple, list[Configuration]] = {}
    for c in measured:
        matched.setdefault(tuple(settings[c.id].items()), []).append(c)
    groups = []
    for common, members in matched.items():
        ranked = [c for c in fastest_first if c in members]
        ratios = [_ratio(*pair, document["rows"], plan.seed) for pair in _pairs(members, ranked)]
        ids = {"members": [c.id for c in members], "ranking": [c.id for c in ranked]}
        groups.append({"settings": dict(common), **ids, "ratios": ratios})
    best: dict[str, dict[str, Any]] = {}
    for c in fastest_first:
        if c.implementation == "ours":
            best.setdefault(c.framework, {"configuration": c.id, "settings": settings[c.id]})
    document["summary"], document["groups"] = list(summaries.values()), groups
    document["best"], document["noise_floor"] = list(best.values()), _noise_floor(groups)


# Where a document has a rate, its unit, its field in a row, how it was measured, its kind.
_RATES = (
    ("peaks", "gflops_per_second", "peak_gflops_per_second", "matrix products of",
     ("precision", "threads")),
    ("bandwidths", "gbytes_per_second", "bandwidth_gbytes_per_second", "additions in place of",
     ("threads",)),
)  # fmt: skip


def _add_rates_of_workers(plan: Plan, document: dict[str, Any]) -> None:
    """Add the fastest products of each precision and threads, and the best bandwidth of threads.

    Of processes that have all the threads only: others know a share of the rates.
    """
    by_id = {c.id: c for c in plan.configurations if c.devices == 1 or plan.device == "gpu"}
    for place, unit, field, method, kind in _RATES:
        best: dict[tuple, dict[str, Any]] = {}
        for row in document["rows"]:
            configuration = by_id.get(row["configuration"])
            if configuration is None or row[field] is None:
                continue
            asked = {name: getattr(configuration, name) for name in kind}
            entry = {"method": f"{method} {configuration.framework}", **asked, unit: row[field]}
            key = tuple(asked.values())
            best[key] = max(best.get(key, entry), entry, key=lambda one: one[unit])
        document[place] += best.values()


def _summary(plan: Plan, document: dict[str, Any], configuration: Configuration) -> dict[str, Any]:
    """Return a configuration's line of the table; no numbers unless all its rows are ok.

    Rates are images per second, times milliseconds, memory bytes.
    """
    rows = [row for row in document["rows"] if row["configuration"] == configuration.id]
    failed = [row for row in rows if row["status"] != "ok"]
    summary: dict[str, Any] = {
        "configuration": configuration.id,
        "label": plan.labels[configuration.id],
        "status": "ok",
        "error": None,
        "settings": None,
        "results": None,
    }
    if not rows:
        return summary | {"status": "not_run", "error": "the run ended before its turn"}
    if failed:
        return summary | {name: failed[0][name] for name in ("status", "error")}
    roofline = roofline_of(document, dataclasses.asdict(configuration))
    results = _results(rows, configuration.batch_size, roofline, plan.seed)
    return summary | {"settings": rows[0]["settings"], "results": results}


def _results(rows: Rows, batch_size: int, roofline: Roofline, seed: int) -> dict[str, Any]:
    rounds = [rates_of(row, batch_size) for row in rows]
    seconds = batch_size / median_of_rounds(rounds)
    on_gpu = rows[0]["settings"]["platform"] == "gpu"
    memory = "peak_device_bytes" if on_gpu else "peak_resident_bytes"
    phases = {
        name: median([row["phases_ms"][name] for row in rows]) for name in rows[0]["phases_ms"]
    }
    found = {
        "images_per_second": _rates(rounds, seed),
        "step_ms": _single_steps([ms for row in rows for ms in row["latency_ms"]]),
        "percent_of_gemm_peak": _percent(roofline.compute_seconds, seconds),
        "percent_of_roofline": _percent(roofline.seconds, seconds),
        "roofline": roofline.to_dict(),
        "phases_ms": phases,
        "compile_ms": phases["compile_first_step"],
        "peak_memory_bytes": max(row["memory"][memory] for row in rows),
        "warm_up_settled": all(row["warm_up"]["settled"] for row in rows),
    }
    if "communication_ms" in rows[0]:
        found["communication_ms"] = median([row["communication_ms"] for row in rows])
    return found


def _rates(rounds: list[list[float]], seed: int) -> dict[str, Any]:
    rates = [rate for own in rounds for rate in own]
    return {
        "median": median_of_rounds(rounds),
        "quartiles": quantiles(rates, (0.25, 0.75)),
        "interval_95": list(bootstrap_interval(rounds, seed)),
        "rounds": len(rounds),
        "windows": len(rates),
        "outliers": len(outliers(rates)),
    }


def _single_steps(milliseconds: list[float]) -> dict[str, Any]:
    p5, p50, p95 = quantiles(milliseconds, (0.05, 0.5, 0.95))
    counts = {"steps": len(milliseconds), "outliers": len(outliers(milliseconds))}
    return {"p5": p5, "p50": p50, "p95": p95, **counts}


def _percent(least: float | None, seconds: float) -> float | None:
    return None if least is None else 100 * least / seconds


def _settings(configuration: Configuration, read_back: dict[str, Any]) -> dict[str, Any]:
    """Return what configurations of one group have in common."""
    return {
        **{name: read_back[name] for name in ("platform", "precision", "dtype")},
        "batch_size": configuration.batch_size,
        # Where a framework cannot report them, those that the launcher gave it.
        "threads": read_back["threads"] or configuration.threads,
        "input": configuration.input,
        "devices": configuration.devices,
    }


def _pairs(
    members: Sequence[Configuration], ranked: Sequence[Configuration]
) -> list[tuple[str, Configuration, Configuration]]:
    """Return (kind, numerator, denominator) of every ratio that a reader asks for."""
    plain = [c for c in members if not c.again]
    ours = [c for c in plain if c.implementation == "ours"]
    best = [c for c in ranked if c.implementation == "ours"]
    return [
        *(("fastest", best[0], rival) for rival in best[1:]),
        *(("framework", c, ours[0]) for c in ours[1:]),
        *(
            ("baseline", c, other)
            for c in ours
            for other in plain
            if (other.implementation, other.framework) == ("baseline", c.framework)
        ),
        *(
            ("again", c, other)
            for c in plain
            for other in members
            if other == dataclasses.replace(c, again=True)
        ),
    ]


def _ratio(
    kind: str, above: Configuration, below: Configuration, rows: Rows, seed: int
) -> dict[str, Any]:
    numerator, denominator = (
        {r["round"]: rates_of(r, c.batch_size) for r in rows if r["configuration"] == c.id}
        for c in (above, below)
    )
    ratio = paired_ratio(numerator, denominator, seed)
    return {
        "kind": kind,
        "numerator": above.id,
        "denominator": below.id,
        "ratio": ratio.value,
        "interval_95": [ratio.low, ratio.high],
        "per_round": list(ratio.per_round),
    }


def _noise_floor(groups: Sequence[dict[str, Any]]) -> float | None:
    """Return by what fraction two equal configurations may seem to differ; None without A/A."""
    ends = [
        end
        for group in groups
        for ratio in group["ratios"]
        if ratio["kind"] == "again"
        for end in (ratio["ratio"], *ratio["interval_95"])
    ]
    return max((max(end, 1 / end) - 1 for end in ends), default=None)
