"""What pages are made of: templates, and plots as pictures in SVG; axes for other plots."""

import base64
import io
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import matplotlib
import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shared.files.errors import printable
from shared.interface import Array
from shared.report.runs import drawn
from shared.run.pictures import averaging_window, moving_average

COMMON_TEMPLATES = "shared.report"
STYLES = (
    ("#2b7bd1", ()),
    ("#c9610a", (6, 2)),
    ("#2a8f5a", (2, 1.5)),
    ("#c9415c", (8, 2, 2, 2)),
    ("#8b62c4", (4, 3)),
    ("#7d7f1f", (1, 1)),
)
"""Colour (3:1 or more on the page's white; on its near-black the page inverts it), dashes."""

SAFE = " /:;,=()!*?@[]{}|"  # of an SVG, as the source of a picture in HTML

OUTSIDE = 1.0  # percent of the losses at either end that need not be in a plot

PAGE = {
    "legend.frameon": False,
    # Long lines lose the points that they do not need: each stays within half a point of its place.
    "path.simplify_threshold": 0.5,
    "svg.fonttype": "none",  # text as text
    "font.sans-serif": ["DejaVu Sans"],  # else every text names ten fonts
    "svg.hashsalt": "page",  # the same plot is the same file
}
"""Settings of matplotlib under which the figures of pages are made."""


def run_style(run: int) -> tuple[str, tuple[float, ...]]:
    """Return a run's colour and dashes: 36 runs differ."""
    count = len(STYLES)
    return STYLES[run % count][0], STYLES[(run + run // count) % count][1]


def new_axes(title: str, width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of so many inches and its axes, in the style that all plots have."""
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(color="black", alpha=0.135, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def saved(figure: Figure, kind: str, **options: Any) -> bytes:
    """Return a figure as a file of a kind, such as "png"."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def draw_panel(tables: Sequence[Array], column: str, *, averaged: bool = False) -> bytes:
    """Return a column of every run's table as an SVG with its name, empty where all are gaps.

    Run r's line is group `column-r`. Averaged lines are shown whole, and below each of them, pale,
    the raw values, group `column-r-raw`, but for OUTSIDE percent at both ends.
    """
    ends: list[float] = []
    with matplotlib.rc_context(PAGE):
        figure, axes = new_axes(column, 4.8, 2.9)
        axes.set_xlabel("training step")
        for run, table in enumerate(tables):
            colour, dashes = run_style(run)
            steps, raw = table["step"], drawn(table[column])
            window = averaging_window(len(raw)) if averaged else 1
            bold: dict[str, Any] = {"linewidth": 1.5, "linestyle": (0, dashes) if dashes else "-"}
            lines = [("", moving_average(raw, window), 0.0, bold)] if len(raw) else []
            if window > 1:
                lines.append(("-raw", raw, OUTSIDE, {"linewidth": 0.6, "alpha": 0.22, "zorder": 1}))
            # A line of few points is hardly seen, one of a single point not at all.
            marker = "o" if len(steps) <= 40 else None
            for suffix, values, outside, style in lines:
                finite = values[np.isfinite(values)]
                if len(finite):
                    gid = f"{column}-{run}{suffix}"
                    axes.plot(steps, values, gid=gid, c=colour, marker=marker, ms=2.5, **style)
                    ends += np.percentile(finite, [outside, 100 - outside]).tolist()
        if ends and min(ends) < max(ends):
            margin = 0.05 * (max(ends) - min(ends))
            axes.set_ylim(min(ends) - margin, max(ends) + margin)
    return svg(figure) if ends else b""


def svg(figure: Figure) -> bytes:
    """Return a figure that was made under the settings PAGE as an SVG without a ground."""
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(PAGE):
        return saved(figure, "svg", transparent=True, metadata=nothing)


def render(template: str, package: str = COMMON_TEMPLATES, **values: Any) -> str:
    """Return a page of a package's template, escaped; jinja2.UndefinedError for a missing value."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(COMMON_TEMPLATES)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters["thousands"] = "{:,}".format
    environment.filters["svg_source"] = lambda image: (
        f"data:image/svg+xml,{quote(b' '.join(image.split()), SAFE)}"  # shorter than in base64
    )
    environment.filters["webp_source"] = lambda image: (
        f"data:image/webp;base64,{base64.b64encode(image).decode('ascii')}"
    )
    return environment.get_template(template).render(values)
