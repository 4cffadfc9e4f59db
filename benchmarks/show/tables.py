"""What a run says on the terminal: the tables, the ratios, what failed, the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.document import roofline
from benchmarks.show import verdict
from benchmarks.show.verdict import short

PIPED_WIDTH = 120  # a pipe has no width of its own, and 80 columns would fold the table
HEADINGS = (
    "img/s median\n\\[quartiles]",
    "ms/step\np50",
    "p95",
    "% of\nGEMM peak",
    "% of\nroofline",
    "compile\ns",
    "peak\nGB",
)


def make_console() -> Console:
    """Return a console that is wide enough for the table where nobody says how wide it is."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def show(document: dict[str, Any], console: Console) -> None:
    """Print the tables, the peaks and limits, what failed, the ratios and the verdict."""
    for table in results_tables(document):
        console.print(table)
    for line in (
        *peak_lines(document),
        *bandwidth_lines(document),
        *roofline.lines(document),
        *caution_lines(document),
        *loading_lines(document),
        *communication_lines(document),
        *failures(document),
    ):
        console.print(line, soft_wrap=True)
    for line in (*verdict.ratio_lines(document), *verdict.verdicts(document)):
        console.print(escape(line), soft_wrap=True)
    if document["interrupted"]:
        console.print("interrupted: the rounds that were measured until then")
    console.print(f"elapsed {document['elapsed_seconds']:.0f} s")


def results_tables(document: dict[str, Any]) -> list[Table]:
    """Return a table of each matched group, of what failed, and of the best of each framework."""
    summaries = {summary["configuration"]: summary for summary in document["summary"]}
    groups = document["groups"]
    failed = [s for s in summaries.values() if s["results"] is None]
    if len(groups) < 2:
        return [_table(None, list(summaries.values()))]
    tables = [
        _table(verdict.group_title(group), verdict.group_lines(document, group)) for group in groups
    ]
    tables += [_table("no numbers", failed)] if failed else []
    best = [summaries[entry["configuration"]] for entry in document["best"]]
    title = "best of each, not of the same settings: no ranking"
    return [*tables, _table(title, best)]


def _table(title: str | None, lines: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("framework")
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("status")
    for summary in lines:
        table.add_row(*_cells(summary))
    return table


def _cells(summary: dict[str, Any]) -> list[str]:
    results = summary["results"]
    if results is None:
        return [summary["label"], *["-"] * len(HEADINGS), summary["status"]]
    rate, step = results["images_per_second"], results["step_ms"]
    percents = (results["percent_of_gemm_peak"], results.get("percent_of_roofline"))
    low, high = rate["quartiles"]
    return [
        summary["label"],
        f"{short(rate['median'])} \\[{short(low)}, {short(high)}]",
        short(step["p50"]),
        short(step["p95"]),
        *("-" if percent is None else f"{percent:.0f}" for percent in percents),
        f"{results['compile_ms'] / 1e3:.1f}",
        f"{results['peak_memory_bytes'] / 1e9:.2f}",
        verdict.remark(summary),
    ]


def failures(document: dict[str, Any]) -> list[str]:
    """Return one line per configuration that failed."""
    return [
        escape(f"{summary['label']}: {summary['status']}: {summary['error']}")
        for summary in document["summary"]
        if summary["status"] != "ok"
    ]


def peak_lines(document: dict[str, Any]) -> list[str]:
    """Return the fastest matrix products that the percentages are of."""
    return [
        f"GEMM peak: {peak['gflops_per_second']:.0f} GFLOP/s, {peak['method']}, "
        f"{peak['precision']}, threads {peak['threads']}"
        for peak in document["peaks"]
    ] or ["GEMM peak: not measured"]


def bandwidth_lines(document: dict[str, Any]) -> list[str]:
    """Return the memory bandwidths that were measured."""
    return [
        f"memory bandwidth: {bandwidth['gbytes_per_second']:.1f} GB/s, {bandwidth['method']}, "
        f"threads {bandwidth['threads']}"
        for bandwidth in document.get("bandwidths", ())
    ] or ["memory bandwidth: not measured"]


def caution_lines(document: dict[str, Any]) -> list[str]:
    """Return a word of caution for each kind of percentage that exceeds 100."""
    found = [summary["results"] for summary in document["summary"] if summary["results"]]
    lines = []
    if any((results["percent_of_gemm_peak"] or 0) > 100 for results in found):
        lines.append(
            "Above 100 %: convolutions ran faster than the matrix products seen, or skipped the "
            "taps on padding, which the count has"
        )
    of_memory = [r for r in found if (r.get("roofline") or {}).get("limit") == "memory"]
    if any(results["percent_of_roofline"] > 100 for results in of_memory):
        lines.append(
            "Above 100 % of a memory roofline: its count takes nothing from a cache, where small "
            "batches may stay"
        )
    return lines


def communication_lines(document: dict[str, Any]) -> list[str]:
    """Return what part of a step the exchanges between devices would take by themselves."""
    measured = [s for s in document["summary"] if "communication_ms" in (s["results"] or {})]
    lines = []
    for summary in measured:
        exchanges, step = (summary["results"][n] for n in ("communication_ms", "step_ms"))
        lines.append(
            f"{summary['label']}: communication {100 * exchanges / step['p50']:.1f} % of a step "
            f"({short(exchanges)} ms, measured alone)"
        )
    return lines


def loading_lines(document: dict[str, Any]) -> list[str]:
    """Return how fast images reach a step, where that was measured."""
    loading = document["loading"]
    if loading is None:
        return []
    return [
        f"loading: {loading['decoded_per_second']:.0f} JPEG files of {loading['width']} x "
        f"{loading['height']} decoded per second, {loading['batched_per_second']:.0f} images in "
        "batches per second"
    ]
