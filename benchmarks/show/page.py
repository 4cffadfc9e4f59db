"""A run as one self-contained page: verdict, tables, plots, raw settings. Nothing is fetched."""

from pathlib import Path
from typing import Any

from benchmarks.show import plots, tables
from shared.report.page import render, saved, svg

_SHARED = ("p95", "gemm", "roofline", "compile", "memory")
COLUMNS = {"median": "img/s", "interval": "95 % interval", "p5": "ms p5", "p50": "p50"}
COLUMNS |= {name: tables.HEADINGS[name].replace("\n", " ") for name in _SHARED}
"""Names of `tables.figures` and what stands over them; settings and status follow."""


def write(folder: Path, document: dict[str, Any]) -> Path:
    """Write index.html, which holds its plots, and these as PNG too; return the page's path."""
    figures = plots.draw(document)
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(saved(figure, "png"))
    rows = document["rows"]
    text = render(
        "benchmark.html",
        "benchmarks.show",
        document=document,
        plots={name: svg(figure) for name, figure in figures.items()},
        tables=tables,
        headings=["configuration", *COLUMNS.values(), "settings", "status"],
        groups=[
            (tables.group_title(group), map(_row, tables.group_lines(document, group)))
            for group in document["groups"]
        ],
        best=[_row(summary) for summary in tables.best_lines(document)],
        devices=sorted({row["settings"]["device"] for row in rows if row["settings"]}),
        versions=sorted({item for row in rows for item in row["versions"].items()}),
    )
    path = folder / "index.html"
    path.write_text(text, encoding="utf-8")
    return path


def _row(summary: dict[str, Any]) -> tuple[str, list[str]]:
    found, settings = tables.figures(summary), summary["settings"]
    names = ("precision", "mode", "layout") if found else ()
    shown = ", ".join(settings[name] or "stock" for name in names)
    cells = [found.get(name, "") for name in COLUMNS]
    return summary["label"], [*cells, shown, tables.remark(summary)]
