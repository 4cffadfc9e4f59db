"""A run on the terminal: the tables, the ratios, what failed, the verdict."""

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.document.intervals import LEAST_CHANGE, certainty, judge
from benchmarks.document.roofline import roofline_of
from benchmarks.plan.configuration import Configuration, labels
from shared.files.errors import one_line

PIPED_WIDTH = 120  # a pipe has no width, and 80 columns would fold the table
HEADINGS = {
    "median and quartiles": "img/s median\n[quartiles]",
    "p50": "ms/step\np50",
    "p95": "p95",
    "gemm": "% of\nGEMM peak",
    "roofline": "% of\nroofline",
    "compile": "compile\ns",
    "memory": "peak\nGB",
}
"""Names of `figures` and what stands over them."""
NARROW = ("median and quartiles", "p50", "compile")
"""What a narrow terminal has, so that framework and status stay whole; --json has the rest."""
ODD_FIGURES = "docs/benchmarks.md#how-to-read-it explains not settled and more than 100 %"


def make_console(**options: Any) -> Console:
    """Return a console without markup that is wide enough for the table where its width is open."""
    console = Console(highlight=False, markup=False, **options)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console


def show(document: dict[str, Any], console: Console) -> None:
    """Print the tables, the limits, what failed, the ratios and the verdict."""
    columns = tuple(HEADINGS) if console.width >= PIPED_WIDTH else NARROW
    for title, summaries in _tables(document):
        table = Table(title=title, title_justify="left")
        table.add_column("framework")
        for name in columns:
            table.add_column(HEADINGS[name], justify="right", no_wrap=True)
        table.add_column("status")
        for summary in summaries:
            found = figures(summary)
            cells = [found.get(name) or "-" for name in columns]
            table.add_row(summary["label"], *cells, remark(summary))
        console.print(table)
    for describe in (limit_lines, failures, ratio_lines, verdicts):
        for line in describe(document):
            console.print(line, soft_wrap=True)
    if document["interrupted"]:
        console.print("interrupted: the rounds that were measured until then")
    console.print(f"elapsed {document['elapsed_seconds']:.0f} s")


def _tables(document: dict[str, Any]) -> list[tuple[str | None, list[dict[str, Any]]]]:
    """Return title and lines of each matched group, of what failed, and of each one's best."""
    groups = document["groups"]
    if len(groups) < 2:
        return [(None, document["summary"])]
    failed = [summary for summary in document["summary"] if summary["results"] is None]
    return [
        *((group_title(group), group_lines(document, group)) for group in groups),
        *([("no numbers", failed)] if failed else []),
        ("best of each, not of the same settings: no ranking", best_lines(document)),
    ]


def figures(summary: dict[str, Any]) -> dict[str, str]:
    """Return the figures of a configuration by short names, as texts; none where it failed."""
    results = summary["results"]
    if results is None:
        return {}
    rate, step = results["images_per_second"], results["step_ms"]
    median, quartiles = short(rate["median"]), map(short, rate["quartiles"])
    percents = {
        "gemm": results["percent_of_gemm_peak"],
        "roofline": results.get("percent_of_roofline"),
    }
    return {
        "median": median,
        "median and quartiles": f"{median} [{', '.join(quartiles)}]",
        "interval": " to ".join(map(short, rate["interval_95"])),
        **{name: short(step[name]) for name in ("p5", "p50", "p95")},
        **{name: "" if value is None else f"{value:.0f}" for name, value in percents.items()},
        "compile": f"{results['compile_ms'] / 1e3:.1f}",
        "memory": f"{results['peak_memory_bytes'] / 1e9:.2f}",
    }


def remark(summary: dict[str, Any]) -> str:
    """Return the status, and what a reader has to know of a figure."""
    if (results := summary["results"]) is None:
        return str(summary["status"])
    count = results["images_per_second"]["outliers"] + results["step_ms"]["outliers"]
    text = summary["status"] + ("" if results["warm_up_settled"] else ", not settled")
    return text + (f", {count} outlier{'s' * (count > 1)}" if count else "")


def failures(document: dict[str, Any]) -> list[str]:
    """Return one line per configuration that failed."""
    failed = [summary for summary in document["summary"] if summary["status"] != "ok"]
    return [one_line(f"{s['label']}: {s['status']}: {s['error']}") for s in failed]


def limit_lines(document: dict[str, Any]) -> list[str]:
    """Return rooflines, the share of communication, and where odd figures are explained."""
    lines, is_odd = [], False
    for configuration, results in measured(document):
        if roofline := roofline_of(document, configuration):
            devices = configuration.get("devices", 1)
            lines.append(
                f"Roofline of {configuration['precision']}, batch {configuration['batch_size']}, "
                f"threads {configuration['threads']}"
                f"{f', {devices} devices' if devices > 1 else ''}: {results['roofline']['limit']}. "
                f"{short(1e-9 * roofline.operations)} GFLOP at {short(roofline.peak)} GFLOP/s "
                f"take {short(roofline.compute_ms)} ms, {short(1e-9 * roofline.moved_bytes)} GB at "
                f"{short(roofline.bandwidth)} GB/s {short(roofline.memory_ms)} ms"
            )
        if alone := results.get("communication_ms"):
            percent = 100 * alone / results["step_ms"]["p50"]
            words = f"{percent:.1f} % of a step ({short(alone)} ms, measured alone)"
            lines.append(f"{configuration['label']}: communication {words}")
        percents = (results["percent_of_gemm_peak"], results.get("percent_of_roofline"))
        is_odd |= not results["warm_up_settled"] or max(p or 0 for p in percents) > 100
    hint = [ODD_FIGURES] if is_odd else []
    return [*dict.fromkeys(lines), *hint]  # once for all frameworks


def short(value: float) -> str:
    """Return three significant digits, more before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def summaries_of(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the summaries by the id of their configuration."""
    return {summary["configuration"]: summary for summary in document["summary"]}


def measured(document: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the configurations that have results, and these."""
    by_id = {c["id"]: c for c in document["configurations"]}
    found = (s for s in document["summary"] if s["results"] is not None)
    return [(by_id[s["configuration"]], s["results"]) for s in found]


def best_lines(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the summary of each framework's fastest configuration."""
    summaries = summaries_of(document)
    return [summaries[entry["configuration"]] for entry in document["best"]]


def group_title(group: dict[str, Any]) -> str:
    """Return the settings that the rows of a matched group share."""
    own = group["settings"]
    title = f"{own['precision']}, batch {own['batch_size']}, {own['platform']}"
    title += f", threads {own['threads']}" if own["platform"] == "cpu" else ""
    title += f", {own['devices']} devices" if own.get("devices", 1) > 1 else ""
    return title + ("" if own["input"] == "device" else f", batches from the {own['input']}")


def group_lines(document: dict[str, Any], group: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a group's summaries in the plan's order, labelled by what its title has not."""
    members = [c for c in document["configurations"] if c["id"] in group["members"]]
    plain = [{k: v for k, v in c.items() if k not in ("id", "label")} for c in members]
    names = labels([Configuration(**fields) for fields in plain])
    summaries = summaries_of(document)
    return [summaries[c["id"]] | {"label": name} for c, name in zip(members, names, strict=True)]


def verdicts(document: dict[str, Any]) -> list[str]:
    """Return one line for each matched group, and one on the noise where it was measured."""
    groups, floor = document["groups"], document["noise_floor"]
    if not groups:
        return ["No verdict: there is nothing to compare."]
    lines = [
        (f"{group_title(group)}: " if len(groups) > 1 else "") + _verdict(document, group)
        for group in groups
        if group["ranking"]
    ]
    if floor is not None:
        lines.append(f"Noise floor: the same thing twice differs by up to {100 * floor:.1f} %.")
    return lines


def _verdict(document: dict[str, Any], group: dict[str, Any]) -> str:
    summaries = summaries_of(document)
    ratios = [ratio for ratio in group["ratios"] if ratio["kind"] == "fastest"]
    # Without a rival: ours, where it is alone with a baseline.
    alone = min(group["ranking"], key=lambda name: "/ours/" not in name)
    first = summaries[ratios[0]["numerator"] if ratios else alone]
    rate = first["results"]["images_per_second"]
    low, high = map(short, rate["interval_95"])
    speed = f"{short(rate['median'])} img/s (95 % interval {low} to {high})"
    if not ratios:
        return f"{first['label']} trains {speed}."
    amounts = ", ".join(_times(r, summaries[r["denominator"]]["label"]) for r in ratios)
    winner, rounds = f"{first['label']} at {speed}", min(len(r["per_round"]) for r in ratios)
    if rounds < 2:
        # One process per framework shows nothing of the spread between processes.
        return f"Not certain after one round: {winner} is {amounts}."
    floor = document["noise_floor"]
    least = LEAST_CHANGE if floor is None else floor
    certain = [certainty(ratio["per_round"]) for ratio in ratios]
    changes = {judge(r["ratio"], own, least) for r, own in zip(ratios, certain, strict=True)}
    if changes == {"faster"}:
        return f"Fastest: {winner}, {amounts}."
    needed = max(1 + least, *(math.sqrt(above / below) for below, above in certain))
    return (
        f"No clear winner: {winner} is {amounts}. After {rounds} rounds a ratio is certain from "
        f"about {needed:.2f} on."
    )


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
