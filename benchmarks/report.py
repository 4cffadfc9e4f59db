"""What a run says on the terminal: the tables, the ratios, what failed, the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import verdict
from benchmarks.verdict import short

PIPED_WIDTH = 120  # a pipe has no width of its own, and 80 columns would fold the table
HEADINGS = (
    "img/s median \\[quartiles]",
    "ms/step p50",
    "p95",
    "% of GEMM peak",
    "compile s",
    "peak GB",
)


def make_console() -> Console:
    """Return a console that is wide enough for the table where nobody says how wide it is."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def show(document: dict[str, Any], console: Console) -> None:
    """Print the tables, the peaks, what failed, the ratios and the verdict."""
    for table in results_tables(document):
        console.print(table)
    for line in (
        *peak_lines(document),
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
    table.add_column("framework", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    table.add_column("status")
    for summary in lines:
        table.add_row(*_cells(summary))
    return table


def _cells(summary: dict[str, Any]) -> list[str]:
    results = summary["results"]
    if results is None:
        return [summary["label"], *["-"] * len(HEADINGS), summary["status"]]
    rate, step = results["images_per_second"], results["step_ms"]
    percent = results["percent_of_gemm_peak"]
    low, high = rate["quartiles"]
    return [
        summary["label"],
        f"{short(rate['median'])} \\[{short(low)}, {short(high)}]",
        short(step["p50"]),
        short(step["p95"]),
        "not measured" if percent is None else f"{percent:.0f}",
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
    """Return what the percentages are of, and a word of caution where one exceeds it."""
    lines = [
        f"GEMM peak: {peak['gflops_per_second']:.0f} GFLOP/s, {peak['method']}, "
        f"{peak['precision']}, threads {peak['threads']}"
        for peak in document["peaks"]
    ] or ["GEMM peak: not measured"]
    found = [s["results"]["percent_of_gemm_peak"] or 0 for s in document["summary"] if s["results"]]
    if max(found, default=0) > 100:
        lines.append(
            "Above 100 %: the analytic count has the taps on padding, which a framework may skip"
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
