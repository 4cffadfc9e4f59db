"""A run as one self-contained page: verdict, tables, plots, raw settings. Nothing is fetched.

The plots: throughput, latency, time to the N-th image, ratios.
"""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from benchmarks.document.roofline import roofline_of
from benchmarks.show import tables
from shared.interface import Array
from shared.report.page import PAGE, new_axes, render, saved, svg

_SHARED = ("p95", "gemm", "roofline", "compile", "memory")
COLUMNS = {"median": "img/s", "interval": "95 % interval", "p5": "ms p5", "p50": "p50"}
COLUMNS |= {name: tables.HEADINGS[name].replace("\n", " ") for name in _SHARED}
"""Names of `tables.figures` and what stands over them; settings and status follow."""

# Apart for colour-blind eyes, and in grey.
COLOURS = {"pytorch": "#c8443c", "tf": "#e09f1f", "jax": "#14708f"}
MARKERS = {"float32": "o", "tf32": "s", "bfloat16": "^"}
ROOFLINES = {"float32": ":", "tf32": "-.", "bfloat16": (0, (5, 1))}
SPARE_MARKERS = "Dv*P<>Xp"  # of lines that differ in something else: mode, threads, devices
MARGIN = 1.3  # by which the axis of batch sizes goes beyond the smallest and the largest
ROW_HEIGHT = 0.36  # inches per configuration in the plots that have a row for each

Line = tuple[dict[str, Any], dict[str, Any]]
"""A configuration and its results."""


def write(folder: Path, document: dict[str, Any]) -> Path:
    """Write index.html, which holds its plots, and these as PNG too; return the page's path."""
    figures = draw(document)
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


@matplotlib.rc_context(PAGE)
def draw(document: dict[str, Any]) -> dict[str, Figure]:
    """Return the plots by name; those that have nothing to show are left out."""
    lines = tables.measured(document)
    if not lines:
        return {}
    figures = {
        "throughput": _throughput(document, lines),
        "latency": _latency(document, lines),
        "time_to_image": _time_to_image(lines),
    }
    if any(group["ratios"] for group in document["groups"]):
        figures["ratios"] = _ratios(document)
    return figures


def _style(configuration: dict[str, Any]) -> dict[str, Any]:
    ours = configuration["implementation"] == "ours"
    colour = COLOURS[configuration["framework"]]
    return {
        "color": colour,
        "marker": MARKERS[configuration["precision"]],
        "markerfacecolor": colour if ours else "none",
        "linestyle": "-" if ours else "--",
        "alpha": 0.5 if configuration["again"] else 1.0,
    }


def _log(axes: Axes, name: str) -> None:
    """Make an axis logarithmic, with ticks at 1, 2 and 5; within one decade, with even ones."""
    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    even, wide = MaxNLocator(6, steps=[1, 2, 5, 10]), LogLocator(subs=(1.0, 2.0, 5.0))
    axis.set_major_locator(wide if high > 10 * low else even)
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _name_axes(axes: Axes, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _name_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()


def _throughput(document: dict[str, Any], lines: list[Line]) -> Figure:
    figure, axes = new_axes("Images per second against batch size, 95 % intervals", 8.5, 4.6)
    series: dict[str, list[Line]] = {}
    for line in lines:
        if not line[0]["again"]:
            name = line[0]["label"].replace(f" batch {line[0]['batch_size']}", "")
            series.setdefault(name, []).append(line)
    taken, spare = [], iter(SPARE_MARKERS)
    for name, members in series.items():
        rates = [results["images_per_second"] for _, results in members]
        middle = np.array([rate["median"] for rate in rates])
        reach = np.abs(np.array([rate["interval_95"] for rate in rates]).T - middle)
        batches = [configuration["batch_size"] for configuration, _ in members]
        style = _style(members[0][0])
        if style in taken:
            style["marker"] = next(spare, "x")
        taken.append(style)
        axes.errorbar(batches, middle, yerr=reach, capsize=3, label=name, **style)
    batches = sorted({configuration["batch_size"] for configuration, _ in lines})
    ends = batches[0] / MARGIN, batches[-1] * MARGIN
    _draw_rooflines(document, axes, lines, np.geomspace(*ends, 100))
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, batches)
    axes.set_xlim(*ends)
    axes.xaxis.set_minor_locator(NullLocator())
    _log(axes, "y")
    _name_axes(axes, "images per step", "images per second")
    return figure


def _draw_rooflines(
    document: dict[str, Any], axes: Axes, lines: list[Line], batches: Array
) -> None:
    """Draw how many images per second the measured rates allow."""
    kinds = {(c["precision"], c["threads"], c.get("devices", 1)): c for c, _ in lines}
    for (precision, threads, devices), configuration in kinds.items():
        limit = roofline_of(document, configuration | {"batch_size": batches})
        if limit is None:
            continue
        together = f", {devices} devices" if devices > 1 else ""
        rates = f"{limit.peak:,.0f} GFLOP/s, {limit.bandwidth:,.3g} GB/s"
        label = f"{precision} roofline, threads {threads}{together},\n{rates}"
        least = np.maximum(limit.compute_ms, limit.memory_ms)
        style = ROOFLINES[precision]
        axes.plot(
            batches, 1e3 * batches / least, color="black", alpha=0.7, linestyle=style, label=label
        )


def _latency(document: dict[str, Any], lines: list[Line]) -> Figure:
    title = "Single synchronised steps: each, p50, and p5 to p95"
    figure, axes = new_axes(title, 8.5, 1.3 + ROW_HEIGHT * len(lines))
    samples: dict[str, list[float]] = {}
    for row in document["rows"]:
        samples.setdefault(row["configuration"], []).extend(row["latency_ms"])
    for y, (configuration, results) in enumerate(lines):
        colour, step = COLOURS[configuration["framework"]], results["step_ms"]
        values = samples[configuration["id"]]
        shift = np.linspace(-0.16, 0.16, len(values))
        axes.plot(values, y + shift, ".", color=colour, alpha=0.45, markersize=4)
        axes.plot([step["p5"], step["p95"]], [y, y], color="black", linewidth=1.6)
        axes.plot(step["p50"], y, "|", color="black", markersize=13, markeredgewidth=2)
    _name_rows(axes, [configuration["label"] for configuration, _ in lines])
    _log(axes, "x")
    axes.set_xlabel("milliseconds")
    return figure


def _time_to_image(lines: list[Line]) -> Figure:
    """Draw the fastest configuration of each framework and implementation."""
    title = "Time to the N-th image: import, set-up, compilation, training"
    figure, axes = new_axes(title, 8.5, 4.6)
    images = np.logspace(2, 6, 200)
    by_rate = sorted(lines, key=lambda line: line[1]["images_per_second"]["median"])
    fastest = {(line[0]["framework"], line[0]["implementation"]): line for line in by_rate}
    for configuration, results in fastest.values():
        phases = ("import", "init", "compile_first_step")
        start = 1e-3 * sum(results["phases_ms"][name] for name in phases)
        seconds = start + images / results["images_per_second"]["median"]
        style = _style(configuration) | {"marker": ""}
        axes.plot(images, seconds, label=configuration["label"], **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    _log(axes, "y")
    _name_axes(axes, "images seen", "seconds since the process started")
    return figure


def _ratios(document: dict[str, Any]) -> Figure:
    names = {c["id"]: c for c in document["configurations"]}
    of_groups = (ratio for group in document["groups"] for ratio in group["ratios"])
    ratios = [ratio for ratio in of_groups if ratio["kind"] != "fastest"]
    floor = document["noise_floor"]
    title = "Ratios of images per second, 95 % intervals; right of 1: the first one is faster"
    title += "" if floor is None else f"\ngrey: noise floor, {100 * floor:.1f} %"
    figure, axes = new_axes(title, 9.5, 1.4 + ROW_HEIGHT * len(ratios))
    if floor is not None:
        axes.axvspan(1 / (1 + floor), 1 + floor, color="#888888", alpha=0.3)
    axes.axvline(1.0, color="black", linewidth=1)
    pairs = [(names[ratio["numerator"]], names[ratio["denominator"]]) for ratio in ratios]
    for y, (ratio, (top, _)) in enumerate(zip(ratios, pairs, strict=True)):
        colour = COLOURS[top["framework"]]
        axes.plot(ratio["interval_95"], [y, y], color=colour, linewidth=2)
        axes.plot(ratio["per_round"], [y] * len(ratio["per_round"]), ".", color=colour, alpha=0.5)
        axes.plot(ratio["ratio"], y, "D", color=colour, markersize=6)
    axes.set_ylim(-0.5, len(ratios) - 0.5)
    _name_rows(axes, [f"{top['label']} / {below['label']}" for top, below in pairs])
    ends = [1.0, *(end for ratio in ratios for end in ratio["interval_95"])]
    if max(ends) / min(ends) > 4:  # in factors where they are far apart
        _log(axes, "x")
    return figure
