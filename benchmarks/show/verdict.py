"""The answer in a line: who is fastest, by how much, and whether that is certain."""

from __future__ import annotations

from typing import Any

from benchmarks.plan.configuration import Configuration, labels

# What an A/A control may show by chance is no difference either; without one, less than this.
LEAST_DIFFERENCE = 0.03


def short(value: float) -> str:
    """Return three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def remark(summary: dict[str, Any]) -> str:
    """Return the status, and what a reader has to know of a figure."""
    results = summary["results"]
    if results is None:
        return str(summary["status"])
    strange = results["images_per_second"]["outliers"] + results["step_ms"]["outliers"]
    remarks = [] if results["warm_up_settled"] else ["not settled"]
    remarks += [f"{strange} outlier{'s' if strange > 1 else ''}"] if strange else []
    return ", ".join(["ok", *remarks])


def group_title(group: dict[str, Any]) -> str:
    """Return the settings that the rows of a matched group share."""
    own = group["settings"]
    title = f"{own['precision']}, batch {own['batch_size']}, {own['platform']}"
    title += f", threads {own['threads']}" if own["platform"] == "cpu" else ""
    title += f", {own['devices']} devices" if own.get("devices", 1) > 1 else ""
    return title + ("" if own["input"] == "device" else f", batches from the {own['input']}")


def group_lines(document: dict[str, Any], group: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the summaries of a group in the order of the plan, repetitions included.

    Their labels leave out what the group's title says.
    """
    members = [c for c in document["configurations"] if c["id"] in group["members"]]
    plain = [{k: v for k, v in c.items() if k not in ("id", "label")} for c in members]
    names = labels([Configuration(**fields) for fields in plain])
    summaries = {summary["configuration"]: summary for summary in document["summary"]}
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
    summaries = {summary["configuration"]: summary for summary in document["summary"]}
    ratio = next((r for r in group["ratios"] if r["kind"] == "fastest"), None)
    # Ours, where it is alone with a baseline.
    alone = sorted(group["ranking"], key=lambda name: "/ours/" not in name)[0]
    name = alone if ratio is None else ratio["numerator"]
    rate = summaries[name]["results"]["images_per_second"]
    low, high = rate["interval_95"]
    speed = f"{short(rate['median'])} img/s (95 % interval {short(low)} to {short(high)})"
    if ratio is None:
        return f"{summaries[name]['label']} trains {speed}."
    return _judge(
        f"{summaries[name]['label']} at {speed}",
        summaries[ratio["denominator"]]["label"],
        ratio,
        document["noise_floor"],
    )


def _judge(first: str, second: str, ratio: dict[str, Any], floor: float | None) -> str:
    low, high = ratio["interval_95"]
    amount = f"{ratio['ratio']:.2f}x {second} (95 % interval {low:.2f} to {high:.2f})"
    if len(ratio["per_round"]) < 2:
        # One process per framework says nothing about the spread between processes.
        return f"Not certain after one round: {first} is {amount}."
    if low <= 1 + (LEAST_DIFFERENCE if floor is None else floor):
        return f"No clear winner: {first} is {amount}."
    return f"Fastest: {first}, {amount}."


def ratio_lines(document: dict[str, Any]) -> list[str]:
    """Return one line for each ratio to a baseline."""
    names = {c["id"]: c["label"] for c in document["configurations"]}
    return [
        f"{names[r['numerator']]} is {r['ratio']:.2f}x {names[r['denominator']]} "
        f"(95 % interval {r['interval_95'][0]:.2f} to {r['interval_95'][1]:.2f})"
        for group in document["groups"]
        for r in group["ratios"]
        if r["kind"] == "baseline"
    ]
