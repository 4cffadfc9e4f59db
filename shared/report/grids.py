"""The sample grids of a report: which of them, and the slider that moves those of all runs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from shared.files.errors import printable
from shared.report.runs import Run

MOST_GRIDS = 60
"""Of one run."""

MOST_BYTES = 30_000_000
"""Of all grids of a page together, as PNG; base64 adds a third."""


@dataclass(frozen=True)
class Grid:
    """One grid that goes into the page, its PNG file as it is; width and height in pixels."""

    step: int
    content: bytes
    width: int
    height: int


@dataclass(frozen=True)
class ChosenGrids:
    """The grids of one run that go into the page, and notes on those that do not."""

    grids: tuple[Grid, ...]
    notes: tuple[str, ...]


def choose_grids(run: Run, most_bytes: float) -> ChosenGrids:
    """Read as many grids as fit, evenly chosen; the last is always among them, if it is whole."""
    paths = list(run.grids.values())
    count = _count_that_fits([path.stat().st_size for path in paths], most_bytes)
    notes = []
    if count < len(paths):
        notes.append(
            f"{count} of {len(paths):,} sample grids are shown, evenly chosen; "
            f"all are in {printable(run.path)}/samples."
        )
    grids = []
    for index in evenly(len(paths), count):
        try:
            grids.append(_read_grid(list(run.grids)[index], paths[index]))
        # What Pillow raises for a damaged PNG.
        except (OSError, SyntaxError, ValueError) as error:
            reason = " ".join(str(error).split()).replace(str(paths[index]), "the file")
            notes.append(f"{paths[index].name} cannot be read and is left out ({reason}).")
    return ChosenGrids(tuple(grids), tuple(notes))


def evenly(total: int, count: int) -> list[int]:
    """Return `count` of the indices below `total`, evenly spaced, the last always among them."""
    return sorted(set(np.linspace(total - 1, 0, count).round().astype(int).tolist()))


def _count_that_fits(sizes: list[int], most_bytes: float) -> int:
    count = min(len(sizes), MOST_GRIDS)
    while count > 1 and sum(sizes[index] for index in evenly(len(sizes), count)) > most_bytes:
        count -= 1
    return count


def _read_grid(step: int, path: Path) -> Grid:
    content = path.read_bytes()
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        width, height = image.size
        image.verify()
    return Grid(step, content, width, height)


def grids_html(runs: Sequence[Run], chosen: Sequence[ChosenGrids]) -> str:
    """Return the slider, which appears where JavaScript runs, and a figure for every run."""
    steps = sorted({grid.step for one in chosen for grid in one.grids})
    figures = "\n".join(
        _figure(run, one.grids) for run, one in zip(runs, chosen, strict=True) if one.grids
    )
    if not steps:
        return "<p>No run has samples.</p>"
    return f'{_slider(steps)}<div class="grids">\n{figures}\n</div>'


def _slider(steps: Sequence[int]) -> str:
    if len(steps) == 1:
        return ""
    last = len(steps) - 1
    return f"""<div class="slider" id="slider" data-steps="{" ".join(map(str, steps))}" hidden>
<label for="step">after step <output id="shown" for="step">{steps[-1]:,}</output></label>
<input type="range" id="step" min="0" max="{last}" value="{last}" step="1">
</div>
<noscript><p>Without JavaScript only the last grid of every run is shown.</p></noscript>
"""


def _figure(run: Run, grids: Sequence[Grid]) -> str:
    last = grids[-1]
    images = "\n".join(_image(run, grid, hidden=grid is not last) for grid in grids)
    return (
        f'<figure class="grid">\n<figcaption>{escape(run.name)}: '
        f'<span class="grid-step">step {last.step:,}</span></figcaption>\n{images}\n</figure>'
    )


def _image(run: Run, grid: Grid, *, hidden: bool) -> str:
    data = base64.b64encode(grid.content).decode("ascii")
    return (
        f'<img{" hidden" if hidden else ""} data-step="{grid.step}" width="{grid.width}" '
        f'height="{grid.height}" decoding="sync" alt="{escape(run.name)}: samples after '
        f'{grid.step:,} steps" src="data:image/png;base64,{data}">'
    )
