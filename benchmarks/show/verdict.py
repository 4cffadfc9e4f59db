"""The answer in a line: who is fastest, by how much, and whether that is certain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.plan.configuration import Configuration, labels

# What an A/A control may show by chance is no difference either; without one, less than this.
LEAST_DIFFERENCE = 0.03


def short(value: float) -> str:
    """Return three significant digits, more before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def summaries_of(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the summaries by the id of their configuration."""
    return {summary["configuration"]: summary for summary in document["summary"]}


def group_title(group: dict[str, Any]) -> str:
    """Return the settings that the rows of a matched group share."""
    own = group["settings"]
    title = f"{own['precision']}, batch {own['batch_size']}, {own['platform']}"
    title += f", threads {own['threads']}" if own["platform"] == "cpu" else ""
    title += f", {own['devices']} devices" if own.get("devices", 1) > 1 else ""
    return title + ("" if own["input"] == "device" else f", batches from the {own['input']}")


def group_lines(document: dict[str, Any], group: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the summaries of a group in the order of the plan, repetitions included.

    Their labels leave out what the group's title has.
    """
    members = [c for c in document["configurations"] if c["id"] in group["members"]]
    plain = [{k: v for k, v in c.items() if k not in ("id", "label")} for c in members]
    names = labels([Configuration(**fields) for fields in plain])
    summaries = summaries_of(document)
    return [summaries[c["id"]] | {"label": name} for c, name in zip(members, names, strict=True)]


def verdicts(document: dict[str, Any]) -> list[str]:
    """Return one line for each matched group, and one on the noise where it was measured."""
    groups = document["groups"]
    if not groups:
        return ["No verdict: there is nothing to compare."]
    lines = [
        (f"{group_title(group)}: " if len(groups) > 1 else "") + _verdict(document, group)
        for group in groups
        if group["ranking"]
    ]
    floor = document["noise_floor"]
    if floor is not None:
        lines.append(f"Noise floor: the same thing twice differs by up to {100 * floor:.1f} %.")
    return lines


def _verdict(document: dict[str, Any], group: dict[str, Any]) -> str:
    summaries = summaries_of(document)
    ratio = next((r for r in group["ratios"] if r["kind"] == "fastest"), None)
    # Without a rival: ours, where it is alone with a baseline.
    alone = min(group["ranking"], key=lambda name: "/ours/" not in name)
    first = summaries[ratio["numerator"] if ratio else alone]
    rate = first["results"]["images_per_second"]
    low, high = map(short, rate["interval_95"])
    speed = f"{short(rate['median'])} img/s (95 % interval {low} to {high})"
    if ratio is None:
        return f"{first['label']} trains {speed}."
    winner = f"{first['label']} at {speed}"
    amount = _times(ratio, summaries[ratio["denominator"]]["label"])
    if len(ratio["per_round"]) < 2:
        # One process per framework tells nothing of the spread between processes.
        return f"Not certain after one round: {winner} is {amount}."
    floor = document["noise_floor"]
    if ratio["interval_95"][0] <= 1 + (LEAST_DIFFERENCE if floor is None else floor):
        return f"No clear winner: {winner} is {amount}."
    return f"Fastest: {winner}, {amount}."


def ratio_lines(document: dict[str, Any]) -> list[str]:
    """Return one line for each ratio to a baseline."""
    names = {c["id"]: c["label"] for c in document["configurations"]}
    return [
        f"{names[ratio['numerator']]} is {_times(ratio, names[ratio['denominator']])}"
        for group in document["groups"]
        for ratio in group["ratios"]
        if ratio["kind"] == "baseline"
    ]


def _times(ratio: dict[str, Any], other: str) -> str:
    low, high = ratio["interval_95"]
    return f"{ratio['ratio']:.2f}x {other} (95 % interval {low:.2f} to {high:.2f})"
