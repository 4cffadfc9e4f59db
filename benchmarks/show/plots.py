"""The plots of a report, as PNG files: throughput, latency, time to the N-th image, ratios."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from benchmarks.document import roofline
from benchmarks.document.roofline import Roofline

# Apart for colour-blind eyes, and in grey.
COLOURS = {"pytorch": "#c8443c", "tf": "#e09f1f", "jax": "#14708f"}
MARKERS = {"float32": "o", "tf32": "s", "bfloat16": "^"}
DOTS_PER_INCH = 130
MARGIN = 1.3  # by which the axis of batch sizes goes beyond the smallest and the largest
ROW_HEIGHT = 0.36  # inches per configuration in the plots that have a row for each

Line = tuple[dict[str, Any], dict[str, Any]]
"""A configuration and its summary."""


def draw(document: dict[str, Any]) -> dict[str, bytes]:
    """Return the plots as PNG by file name; those that have nothing to show are left out."""
    lines = list(_measured(document))
    if not lines:
        return {}
    figures = {
        "throughput.png": _throughput(document, lines),
        "latency.png": _latency(document, lines),
        "time_to_image.png": _time_to_image(lines),
    }
    if any(group["ratios"] for group in document["groups"]):
        figures["ratios.png"] = _ratios(document)
    return {name: _png(figure) for name, figure in figures.items()}


def _measured(document: dict[str, Any]) -> Iterator[Line]:
    summaries = {summary["configuration"]: summary for summary in document["summary"]}
    for configuration in document["configurations"]:
        if summaries[configuration["id"]]["results"]:
            yield configuration, summaries[configuration["id"]]


def _style(configuration: dict[str, Any]) -> dict[str, Any]:
    ours = configuration["implementation"] == "ours"
    colour = COLOURS[configuration["framework"]]
    return {
        "color": colour,
        "marker": MARKERS[configuration["precision"]],
        "markerfacecolor": colour if ours else "white",
        "linestyle": "-" if ours else "--",
        "alpha": 0.5 if configuration["again"] else 1.0,
    }


def _axes(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _log(axes: Axes, name: str) -> None:
    """Make the "x" or "y" axis logarithmic, with ticks at 1, 2 and 5 in every decade."""
    axes.set(**{f"{name}scale": "log"})
    axis: Axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _legend(axes: Axes) -> None:
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _throughput(document: dict[str, Any], lines: list[Line]) -> Figure:
    figure, axes = _axes(8.5, 4.6, "Images per second against batch size, 95 % intervals")
    series: dict[tuple, list[Line]] = {}
    for configuration, summary in lines:
        if configuration["again"]:
            continue
        key = tuple(v for k, v in configuration.items() if k not in ("id", "label", "batch_size"))
        series.setdefault(key, []).append((configuration, summary))
    for members in series.values():
        rates = [s["results"]["images_per_second"] for _, s in members]
        middle = np.array([rate["median"] for rate in rates])
        reach = np.abs(np.array([rate["interval_95"] for rate in rates]).T - middle)
        first = members[0][0]
        batches = [c["batch_size"] for c, _ in members]
        name = first["label"].replace(f" batch {first['batch_size']}", "")
        axes.errorbar(batches, middle, yerr=reach, capsize=3, label=name, **_style(first))
    _draw_rooflines(document, axes, lines)
    axes.set_xscale("log", base=2)
    batches = sorted({c["batch_size"] for c, _ in lines})
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.set_xlim(batches[0] / MARGIN, batches[-1] * MARGIN)
    axes.xaxis.set_minor_locator(NullLocator())
    _log(axes, "y")
    axes.set_xlabel("images per step")
    axes.set_ylabel("images per second")
    _legend(axes)
    return figure


def _draw_rooflines(document: dict[str, Any], axes: Axes, lines: list[Line]) -> None:
    """Draw how many images per second the measured rates allow at each batch size.

    Where no bandwidth was measured, by the operations alone: a horizontal line.
    """
    kinds = {(c["precision"], c["threads"], c.get("devices", 1)): c for c, _ in lines}
    sizes = [configuration["batch_size"] for configuration, _ in lines]
    batches = np.geomspace(min(sizes) / MARGIN, max(sizes) * MARGIN, 100)
    for (precision, threads, devices), configuration in kinds.items():
        rooflines = [roofline.of(document, configuration, batch) for batch in batches]
        seconds = [r.seconds or r.compute_seconds for r in rooflines]
        if seconds[0] is None:
            continue
        label = _name_of_roofline(rooflines[0], precision, threads, devices)
        style = {"float32": ":", "tf32": "-.", "bfloat16": (0, (5, 1))}[precision]
        limits = batches / np.array(seconds)
        axes.plot(batches, limits, color="#555555", linewidth=1.1, linestyle=style, label=label)


def _name_of_roofline(limit: Roofline, precision: str, threads: int, devices: int) -> str:
    kind = f"{precision} roofline, threads {threads}"
    kind += f", {devices} devices" if devices > 1 else ""
    bandwidth = "" if limit.bandwidth is None else f", {limit.bandwidth:,.3g} GB/s"
    return f"{kind},\n{limit.peak:,.0f} GFLOP/s{bandwidth}"


def _latency(document: dict[str, Any], lines: list[Line]) -> Figure:
    height = 1.3 + ROW_HEIGHT * len(lines)
    figure, axes = _axes(8.5, height, "Single synchronised steps: each, p50, and p5 to p95")
    samples: dict[str, list[float]] = {}
    for row in document["rows"]:
        samples.setdefault(row["configuration"], []).extend(row["latency_ms"])
    for y, (configuration, summary) in enumerate(lines):
        colour, step = COLOURS[configuration["framework"]], summary["results"]["step_ms"]
        values = samples[configuration["id"]]
        shift = np.linspace(-0.16, 0.16, len(values))
        axes.plot(values, y + shift, ".", color=colour, alpha=0.45, markersize=4)
        axes.plot([step["p5"], step["p95"]], [y, y], color="#222222", linewidth=1.6)
        axes.plot(step["p50"], y, "|", color="#222222", markersize=13, markeredgewidth=2)
    axes.set_yticks(range(len(lines)), [c["label"] for c, _ in lines], fontsize=8)
    axes.invert_yaxis()
    _log(axes, "x")
    axes.set_xlabel("milliseconds")
    return figure


def _time_to_image(lines: list[Line]) -> Figure:
    figure, axes = _axes(8.5, 4.6, "Time to the N-th image: import, set-up, compilation, training")
    images = np.logspace(2, 6, 200)
    for configuration, summary in _fastest(lines):
        results = summary["results"]
        phases = ("import", "init", "compile_first_step")
        start = 1e-3 * sum(results["phases_ms"][name] for name in phases)
        seconds = start + images / results["images_per_second"]["median"]
        style = _style(configuration) | {"marker": ""}
        axes.plot(images, seconds, label=configuration["label"], **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    _log(axes, "y")
    axes.set_xlabel("images seen")
    axes.set_ylabel("seconds since the process started")
    _legend(axes)
    return figure


def _fastest(lines: list[Line]) -> list[Line]:
    """Return the fastest configuration of each framework and implementation."""
    best: dict[tuple[str, str], Line] = {}
    for configuration, summary in lines:
        key = (configuration["framework"], configuration["implementation"])
        rate = summary["results"]["images_per_second"]["median"]
        rival = best.get(key)
        if rival is None or rate > rival[1]["results"]["images_per_second"]["median"]:
            best[key] = (configuration, summary)
    return list(best.values())


def _ratios(document: dict[str, Any]) -> Figure:
    names = {c["id"]: c for c in document["configurations"]}
    ratios = [
        ratio
        for group in document["groups"]
        for ratio in group["ratios"]
        if ratio["kind"] != "fastest"
    ]
    floor = document["noise_floor"]
    title = "Ratios of images per second, 95 % intervals; right of 1: the first one is faster"
    title += "" if floor is None else f"\ngrey: noise floor, {100 * floor:.1f} %"
    figure, axes = _axes(9.5, 1.4 + ROW_HEIGHT * len(ratios), title)
    if floor is not None:
        axes.axvspan(1 / (1 + floor), 1 + floor, color="#cccccc", alpha=0.6)
    axes.axvline(1.0, color="#222222", linewidth=1)
    labels = []
    for y, ratio in enumerate(ratios):
        low, high = ratio["interval_95"]
        top, below = names[ratio["numerator"]], names[ratio["denominator"]]
        colour = COLOURS[top["framework"]]
        axes.plot([low, high], [y, y], color=colour, linewidth=2)
        axes.plot(ratio["per_round"], [y] * len(ratio["per_round"]), ".", color=colour, alpha=0.5)
        axes.plot(ratio["ratio"], y, "D", color=colour, markersize=6)
        labels.append(f"{top['label']} / {below['label']}")
    axes.set_yticks(range(len(ratios)), labels, fontsize=8)
    axes.set_ylim(len(ratios) - 0.5, -0.5)
    _ratio_axis(axes, [end for ratio in ratios for end in ratio["interval_95"]])
    return figure


def _ratio_axis(axes: Axes, ends: list[float]) -> None:
    """Scale the axis of ratios: in factors where they are far apart, else as they are."""
    if max(*ends, 1.0) / min(*ends, 1.0) > 4:
        _log(axes, "x")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
