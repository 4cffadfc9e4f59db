"""The plots of a report, as SVG in the page that takes its text colour; axes for other plots."""

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shared.interface import Array
from shared.report.runs import drawn
from shared.run.pictures import averaging_window, moving_average

STYLES = (
    ("#2b7bd1", ()),
    ("#c9610a", (6, 2)),
    ("#2a8f5a", (2, 1.5)),
    ("#c9415c", (8, 2, 2, 2)),
    ("#8b62c4", (4, 3)),
    ("#7d7f1f", (1, 1)),
)
"""Colour (3:1 or more on the page's white and on its near-black) and dashes, in line widths."""

OUTSIDE = 1.0  # percent of the losses at either end that need not be in a plot

TEXT = "#010203"  # replaced by the page's text colour when the SVG is in the page
PAGE = {
    "legend.frameon": False,
    # Long lines lose the points that they do not need: each stays within half a point of its place.
    "path.simplify_threshold": 0.5,
    "svg.fonttype": "none",  # text as text, which takes the font of the page
    **dict.fromkeys(("text.color", "xtick.color", "ytick.color"), TEXT),
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor"), TEXT),
}
"""Settings of matplotlib under which the figures of pages are made."""


class Line(NamedTuple):
    """One line of a panel: int64 [points] and float64 [points]; NaN is a gap."""

    run: int
    steps: Array
    values: Array
    is_raw: bool = False


def run_style(run: int) -> tuple[str, tuple[float, ...]]:
    """Return a run's colour and dashes: 36 runs differ."""
    count = len(STYLES)
    return STYLES[run % count][0], STYLES[(run + run // count) % count][1]


def lines_of(tables: Sequence[Array], column: str, *, averaged: bool = False) -> list[Line]:
    """Return a column of every run's table that has a finite value; averaged over the raw one."""
    raw, lines = [], []
    for run, table in enumerate(tables):
        steps, values = table["step"], drawn(table[column])
        window = averaging_window(len(values)) if averaged else 1
        if window > 1:
            raw.append(Line(run, steps, values, is_raw=True))
            values = moving_average(values, window)
        lines += [Line(run, steps, values)] if np.isfinite(values).any() else []
    return [*raw, *lines]


def _limits(lines: Sequence[Line]) -> tuple[float, float] | None:
    """Return limits that show averages whole, raw values but for OUTSIDE percent at both ends."""
    ends: list[float] = []
    for line in lines:
        values = line.values[np.isfinite(line.values)]
        percent = OUTSIDE if line.is_raw else 0.0
        ends += np.percentile(values, [percent, 100 - percent]).tolist() if len(values) else []
    if not ends or min(ends) == max(ends):
        return None
    margin = 0.05 * (max(ends) - min(ends))
    return min(ends) - margin, max(ends) + margin


def new_axes(title: str, width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of so many inches and its axes, in the style that all plots have."""
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(color=matplotlib.rcParams["text.color"], alpha=0.135, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def saved(figure: Figure, kind: str, **options: Any) -> bytes:
    """Return a figure as a file of a kind, such as "png"."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def draw_panel(name: str, lines: Sequence[Line]) -> Markup:
    """Return an <svg> titled `name`; run r's line is group `name-r`, raw values `name-r-raw`."""
    with matplotlib.rc_context(PAGE):
        figure, axes = new_axes(name, 4.8, 2.9)
        axes.set_xlabel("training step")
        for line in lines:
            colour, dashes = run_style(line.run)
            width, alpha = (0.6, 0.22) if line.is_raw else (1.5, 1.0)
            style: dict[str, Any] = {"color": colour, "linewidth": width, "alpha": alpha}
            # A line of few points is hardly seen, one of a single point not at all.
            style["marker"] = "o" if len(line.steps) <= 40 else None
            style["linestyle"] = (0, dashes) if dashes and not line.is_raw else "-"
            raw = "-raw" if line.is_raw else ""
            gid = f"{name}-{line.run}{raw}"
            axes.plot(line.steps, line.values, gid=gid, markersize=2.5, **style)
        axes.set_ylim(_limits(lines))
    return inline_svg(name, figure)


def inline_svg(name: str, figure: Figure) -> Markup:
    """Return a figure that was made under the settings PAGE as an <svg> titled `name`."""
    with matplotlib.rc_context({**PAGE, "svg.hashsalt": name}):
        svg = saved(figure, "svg", transparent=True, metadata={"Date": None}).decode("utf-8")
    # The <svg> element alone, so that several can lie in one page.
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    label = rf'<svg \1 role="img" aria-label="{name}">'
    svg = re.sub(r'<svg[^>]*(viewBox="[^"]*")[^>]*>', label, svg, count=1)
    # matplotlib's own ids (figure_1, axes_1, …) are the same in every figure.
    svg = re.sub(rf'\b(id="|href="#|url\(#)(?!{name}-)', rf"\g<1>{name}-", svg)
    return Markup(svg.replace(TEXT, "currentColor"))
