"""What a run says on the terminal: what was chosen and why, the table, the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

PIPED_WIDTH = 120  # a pipe has no width of its own, and 80 columns would fold the table


def make_console() -> Console:
    """Return a console that is wide enough for the table where nobody says how wide it is."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def results_table(document: dict[str, Any]) -> Table:
    """Return one line per framework; a failed one has its status and no numbers."""
    table = Table(title=None)
    table.add_column("framework")
    for heading in (
        "img/s median \\[quartiles]",
        "ms/step p50",
        "p95",
        "% of GEMM peak",
        "compile s",
        "peak GB",
    ):
        table.add_column(heading, justify="right")
    table.add_column("status")
    for summary in document["summary"]:
        table.add_row(*_cells(summary))
    return table


def _cells(summary: dict[str, Any]) -> list[str]:
    results = summary["results"]
    if results is None:
        return [summary["framework"], *["-"] * 6, summary["status"]]
    rate, step = results["images_per_second"], results["step_ms"]
    percent = results["percent_of_gemm_peak"]
    low, high = rate["quartiles"]
    return [
        summary["framework"],
        f"{_short(rate['median'])} \\[{_short(low)}, {_short(high)}]",
        _short(step["p50"]),
        _short(step["p95"]),
        "not measured" if percent is None else f"{percent:.0f}",
        f"{results['compile_ms'] / 1e3:.1f}",
        f"{results['peak_memory_bytes'] / 1e9:.2f}",
        summary["status"] if results["warm_up_settled"] else "ok, not settled",
    ]


def failures(document: dict[str, Any]) -> list[str]:
    """Return one line per framework that failed."""
    return [
        escape(f"{summary['framework']}: {summary['status']}: {summary['error']}")
        for summary in document["summary"]
        if summary["status"] != "ok"
    ]


def peak_line(document: dict[str, Any]) -> str:
    """Return what the percentages are of, and a word of caution where one exceeds it."""
    peak = document["gemm_peak"]
    if peak is None:
        return "GEMM peak: not measured"
    line = (
        f"GEMM peak: {peak['gflops_per_second']:.0f} GFLOP/s, {peak['method']}, "
        f"threads {peak['threads']}"
    )
    found = [s["results"]["percent_of_gemm_peak"] for s in document["summary"] if s["results"]]
    if max(found, default=0) > 100:
        line += (
            ". Above 100 %: NumPy's BLAS need not be the fastest here, and the analytic count has "
            "the taps on padding, which a framework may skip"
        )
    return line


def verdict(summaries: Sequence[dict[str, Any]]) -> str:
    """Return the answer in one line: who is fastest, by how much, and whether that is certain."""
    ranked = sorted(
        (s for s in summaries if s["results"]),
        key=lambda s: -s["results"]["images_per_second"]["median"],
    )
    if not ranked:
        return "No verdict: there is nothing to compare."
    first = ranked[0]["results"]["images_per_second"]
    low, high = first["interval_95"]
    speed = f"{_short(first['median'])} img/s (95 % interval {_short(low)} to {_short(high)})"
    name = ranked[0]["framework"]
    if len(ranked) == 1:
        return f"{name} trains {speed}."
    second = ranked[1]["results"]["images_per_second"]
    ratio, next_name = first["median"] / second["median"], ranked[1]["framework"]
    if min(first["rounds"], second["rounds"]) < 2:
        # One process per framework says nothing about the spread between processes.
        return f"Not certain after one round: {name} at {speed} is {ratio:.2f}x {next_name}."
    if low <= second["interval_95"][1]:
        return f"No clear winner: {name} at {speed} is {ratio:.2f}x {next_name}, intervals overlap."
    return f"Fastest: {name} at {speed}, {ratio:.2f}x {next_name}."


def _short(value: float) -> str:
    """Return three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
