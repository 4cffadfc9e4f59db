"""Which sample grids of a run go into a report."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

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


def choose_grids(run: Run, most_bytes: float) -> tuple[list[Grid], list[str]]:
    """Read as many grids as fit, evenly chosen; the last is always among them, if it is whole.

    Returns them with notes on those that do not go into the page.
    """
    grids, notes = [], []
    sizes = [path.stat().st_size for path in run.grids.values()]
    count = min(len(sizes), MOST_GRIDS)
    while count > 1 and sum(sizes[index] for index in evenly(len(sizes), count)) > most_bytes:
        count -= 1
    if count < len(sizes):
        notes.append(
            f"{count} of {len(sizes):,} sample grids are shown, evenly chosen; "
            f"all are in {run.path}/samples."
        )
    files = list(run.grids.items())
    for step, path in (files[index] for index in evenly(len(files), count)):
        try:
            grids.append(_read_grid(step, path))
        # What Pillow raises for a damaged PNG.
        except (OSError, SyntaxError, ValueError) as error:
            reason = " ".join(str(error).split()).replace(str(path), "the file")
            notes.append(f"{path.name} cannot be read and is left out ({reason}).")
    return grids, notes


def evenly(total: int, count: int) -> list[int]:
    """Return `count` of the indices below `total`, evenly spaced, the last always among them."""
    return sorted(set(np.linspace(total - 1, 0, count).round().astype(int).tolist()))


def _read_grid(step: int, path: Path) -> Grid:
    content = path.read_bytes()
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        width, height = image.size
        image.verify()
    return Grid(step, content, width, height)
