"""A run as one self-contained page: verdict, tables, plots, raw settings. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.document import roofline
from benchmarks.show import plots, tables, verdict
from shared.report.rendering import render

COLUMNS = {
    "median": "img/s",
    "interval": "95 % interval",
    "p5": "ms p5",
    "p50": "p50",
    "p95": "p95",
    "gemm": "% of GEMM peak",
    "roofline": "% of roofline",
    "compile": "compile s",
    "memory": "peak GB",
}
"""Names of `tables.figures` and what stands over them; settings and status follow."""


def write(folder: Path, document: dict[str, Any]) -> Path:
    """Write index.html, which holds its images, and the images as PNG beside it.

    Returns the page's path; raises OSError where the folder cannot be written to.
    """
    images = plots.draw(document)
    for name, content in images.items():
        (folder / name).write_bytes(content)
    work, summaries = document["workload"], verdict.summaries_of(document)
    text = render(
        "benchmark.html",
        "benchmarks.show",
        title=f"{work['system']}, loss {work['loss']}: one training step",
        interrupted=document["interrupted"],
        verdicts=verdict.verdicts(document),
        ratios=verdict.ratio_lines(document),
        headings=["configuration", *COLUMNS.values(), "settings", "status"],
        groups=[
            (verdict.group_title(group), _rows(verdict.group_lines(document, group)))
            for group in document["groups"]
        ],
        best=_rows(summaries[entry["configuration"]] for entry in document["best"]),
        failures=tables.failures(document),
        images=images,
        facts=[(name, [text]) for name, text in _facts(document).items()],
    )
    path = folder / "index.html"
    path.write_text(text, encoding="utf-8")
    return path


def _rows(summaries: Iterable[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    rows = []
    for summary in summaries:
        found, settings = tables.figures(summary), summary["settings"]
        names = ("precision", "mode", "layout") if found else ()
        shown = ", ".join(settings[name] or "stock" for name in names)
        cells = [found.get(name, "") for name in COLUMNS]
        rows.append((summary["label"], [*cells, shown, tables.remark(summary)]))
    return rows


def _facts(document: dict[str, Any]) -> dict[str, str]:
    machine, work, git = document["host"], document["workload"], document["git"]
    versions = {k: v for row in document["rows"] for k, v in row["versions"].items()}
    devices = {row["settings"]["device"] for row in document["rows"] if row["settings"]}
    return {
        "command": document["command"],
        "when": document["created"],
        "commit": "none" if git is None else git["commit"] + (", changed" if git["dirty"] else ""),
        "machine": f"{machine['cpu']}, {machine['cores']} cores",
        "load before the run": f"{machine['load_average']:.1f}",
        "devices": ", ".join(sorted(devices)),
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
        "one image costs": f"{work['flops_per_image'] / 1e9:.6f} GFLOP a step, by analytic count",
        "peaks": "; ".join(tables.peak_lines(document)),
        "memory": "; ".join(tables.bandwidth_lines(document)),
        "limits": "; ".join([*roofline.lines(document), *tables.caution_lines(document)]),
    }
