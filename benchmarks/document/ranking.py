"""What may be compared with what: matched groups, ratios within them, the best of each framework.

Only rows whose settings, as they were read back, are the same are in one group: device, precision
as it was measured, batch, threads, where batches come from, how many devices. How a framework runs
its step is not one of them: that is what is compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from benchmarks.document.intervals import paired_ratio, rates_of
from benchmarks.plan.configuration import Configuration

Rows = Sequence[dict[str, Any]]
Summaries = Mapping[str, dict[str, Any]]


def matched_groups(
    configurations: Sequence[Configuration], summaries: Summaries, rows: Rows, seed: int
) -> list[dict[str, Any]]:
    """Return the groups with their rankings, fastest first, and their ratios."""
    members: dict[tuple, list[Configuration]] = {}
    for configuration in configurations:
        if summaries[configuration.id]["results"]:
            settings = _settings(configuration, summaries)
            members.setdefault(tuple(settings.items()), []).append(configuration)
    return [
        {
            "settings": dict(key),
            "members": [c.id for c in own],
            "ranking": [c.id for c in _ranked(own, summaries)],
            "ratios": [_ratio(*pair, rows, seed) for pair in _pairs(own, _ranked(own, summaries))],
        }
        for key, own in members.items()
    ]


def _settings(configuration: Configuration, summaries: Summaries) -> dict[str, Any]:
    read_back = summaries[configuration.id]["settings"]
    return {
        "platform": read_back["platform"],
        "precision": read_back["precision"],
        "dtype": read_back["dtype"],
        "batch_size": configuration.batch_size,
        # Where a framework cannot report them, those that the launcher gave it.
        "threads": read_back["threads"] or configuration.threads,
        "input": configuration.input,
        "devices": configuration.devices,
    }


def _ranked(members: Sequence[Configuration], summaries: Summaries) -> list[Configuration]:
    """Return the configurations without repetitions, fastest first."""
    return sorted(
        (c for c in members if not c.again),
        key=lambda c: -summaries[c.id]["results"]["images_per_second"]["median"],
    )


def _pairs(
    members: Sequence[Configuration], ranked: Sequence[Configuration]
) -> list[tuple[str, Configuration, Configuration]]:
    """Return (kind, numerator, denominator) of every ratio that a reader asks for."""
    ours = [c for c in members if c.implementation == "ours" and not c.again]
    fastest = [c for c in ranked if c.implementation == "ours"][:2]
    every_two = [(c, other) for c in members for other in members]
    return [
        *(("fastest", *pair) for pair in pairwise(fastest)),
        *(("framework", c, ours[0]) for c in ours[1:]),
        *(
            ("baseline", c, other)
            for c, other in every_two
            if (c.implementation, other.implementation) == ("ours", "baseline")
            and c.framework == other.framework
            and not (c.again or other.again)
        ),
        *(
            ("again", c, other)
            for c, other in every_two
            if not c.again and other == dataclasses.replace(c, again=True)
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


def best_of_each(
    configurations: Sequence[Configuration], summaries: Summaries
) -> list[dict[str, Any]]:
    """Return each framework's fastest configuration, whatever its settings, fastest first."""
    measured = [
        c for c in configurations if summaries[c.id]["results"] and c.implementation == "ours"
    ]
    best: dict[str, Configuration] = {}
    for c in _ranked(measured, summaries):
        best.setdefault(c.framework, c)
    return [{"configuration": c.id, "settings": _settings(c, summaries)} for c in best.values()]


def noise_floor(groups: Sequence[dict[str, Any]]) -> float | None:
    """Return by what fraction two equal configurations may seem to differ; None without A/A."""
    ends = [
        end
        for group in groups
        for ratio in group["ratios"]
        if ratio["kind"] == "again"
        for end in (ratio["ratio"], *ratio["interval_95"])
    ]
    return max((max(end, 1 / end) - 1 for end in ends), default=None)
