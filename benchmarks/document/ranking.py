"""What may be compared with what: matched groups, ratios within them, the best of each framework.

Only rows whose settings, as they were read back, say the same are in one group: device, precision
as it was measured, batch, threads, where batches come from, how many devices. How a framework runs
its step is not one of them: that is what is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from benchmarks.document.intervals import paired_ratio
from benchmarks.document.rows import Rows, rates_of
from benchmarks.plan.configuration import Configuration

Summaries = Mapping[str, dict[str, Any]]


def matched_groups(
    configurations: Sequence[Configuration], summaries: Summaries, rows: Rows, seed: int
) -> list[dict[str, Any]]:
    """Return the groups with their rankings, fastest first, and their ratios."""
    members: dict[tuple, list[Configuration]] = {}
    for configuration in configurations:
        if summaries[configuration.id]["results"]:
            settings = _settings(configuration, summaries[configuration.id])
            members.setdefault(tuple(settings.items()), []).append(configuration)
    return [_group(dict(key), own, summaries, rows, seed) for key, own in members.items()]


def _settings(configuration: Configuration, summary: dict[str, Any]) -> dict[str, Any]:
    read_back = summary["settings"]
    return {
        "platform": read_back["platform"],
        "precision": read_back["precision"],
        "dtype": read_back["dtype"],
        "batch_size": configuration.batch_size,
        # Where a framework cannot tell, what the launcher told it.
        "threads": read_back["threads"] or configuration.threads,
        "input": configuration.input,
        "devices": configuration.devices,
    }


def _group(
    settings: dict[str, Any],
    members: Sequence[Configuration],
    summaries: Summaries,
    rows: Rows,
    seed: int,
) -> dict[str, Any]:
    ranked = sorted((c for c in members if not c.again), key=lambda c: -_rate(summaries[c.id]))
    pairs = _pairs(members, ranked)
    ratios = []
    for kind, above, below in pairs:
        ratio = paired_ratio(_by_round(rows, above), _by_round(rows, below), seed)
        ratios.append(
            {
                "kind": kind,
                "numerator": above.id,
                "denominator": below.id,
                "ratio": ratio.value,
                "interval_95": [ratio.low, ratio.high],
                "per_round": list(ratio.per_round),
            }
        )
    return {
        "settings": settings,
        "members": [c.id for c in members],
        "ranking": [c.id for c in ranked],
        "ratios": ratios,
    }


def _pairs(
    members: Sequence[Configuration], ranked: Sequence[Configuration]
) -> list[tuple[str, Configuration, Configuration]]:
    """Return (kind, numerator, denominator) of every ratio that a reader asks for."""
    ours = [c for c in members if c.implementation == "ours" and not c.again]
    ranked_ours = [c for c in ranked if c.implementation == "ours"]
    pairs = [("fastest", first, second) for first, second in pairwise(ranked_ours[:2])]
    pairs += [("framework", c, ours[0]) for c in ours[1:]]
    pairs += [
        ("baseline", c, other)
        for c in ours
        for other in members
        if other.implementation == "baseline" and other.framework == c.framework and not other.again
    ]
    pairs += [("again", c, other) for c in members for other in members if c.is_repeated_by(other)]
    return pairs


def best_of_each(
    configurations: Sequence[Configuration], summaries: Summaries
) -> list[dict[str, Any]]:
    """Return each framework's fastest configuration, whatever its settings, fastest first."""
    best: dict[str, Configuration] = {}
    for c in configurations:
        if summaries[c.id]["results"] and c.implementation == "ours" and not c.again:
            rival = best.get(c.framework)
            if rival is None or _rate(summaries[c.id]) > _rate(summaries[rival.id]):
                best[c.framework] = c
    ranked = sorted(best.values(), key=lambda c: -_rate(summaries[c.id]))
    return [{"configuration": c.id, "settings": _settings(c, summaries[c.id])} for c in ranked]


def noise_floor(groups: Sequence[dict[str, Any]]) -> float | None:
    """Return by what fraction two equal configurations may seem to differ; None without A/A."""
    ends = [
        end
        for group in groups
        for ratio in group["ratios"]
        if ratio["kind"] == "again"
        for end in (ratio["ratio"], *ratio["interval_95"])
    ]
    return max(max(end, 1 / end) - 1 for end in ends) if ends else None


def _rate(summary: dict[str, Any]) -> float:
    rate: float = summary["results"]["images_per_second"]["median"]
    return rate


def _by_round(rows: Rows, configuration: Configuration) -> dict[int, list[float]]:
    return {
        row["round"]: rates_of(row, configuration.batch_size)
        for row in rows
        if row["configuration"] == configuration.id
    }
