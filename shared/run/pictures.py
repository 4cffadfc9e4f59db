"""Pictures of a run: the grid of samples and the plot of the losses."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shared.files.atomic import write_file_atomically
from shared.interface import Array

GUTTER = 2  # pixels between the images of a grid and around them


def tiles(pixels: Array, columns: int = 8) -> Array:
    """Lay uint8 images [n, height, width, channels] out in rows on white, each with a GUTTER."""
    columns = min(columns, len(pixels))
    frame = ((0, -len(pixels) % columns), (GUTTER, 0), (GUTTER, 0), (0, 0))
    cells = np.pad(pixels, frame, constant_values=255)
    _, height, width, channels = cells.shape
    rows = cells.reshape(-1, columns, height, width, channels).swapaxes(1, 2)
    grid = rows.reshape(-1, columns * width, channels)
    return np.pad(grid, ((0, GUTTER), (0, GUTTER), (0, 0)), constant_values=255)


def save_png(path: Path, pixels: Array) -> None:
    """Write uint8 [height, width, 1 or 3] as a PNG, in one piece; OSError if the disk refuses."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_file_atomically(path, buffer.getvalue())


@contextlib.contextmanager
def plot(
    path: Path, width: float, height: float, rows: int = 1, columns: int = 1, **shared: Any
) -> Iterator[Array]:
    """Yield the panels [rows, columns] of a plot of so many inches, then write it as a PNG."""
    # Imported here because it takes half a second, which only a plot has to pay.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **shared)
    for axes in panels.flat:
        axes.grid(alpha=0.3)
    yield panels
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # it is drawn as a box
        figure.savefig(buffer, format="png", dpi=100)
    write_file_atomically(path, buffer.getvalue())


def averaging_window(rows: int) -> int:
    """Return over how many of so many rows the losses are averaged."""
    return max(1, rows // 20)


def moving_average(values: Array, window: int) -> Array:
    """Return the mean over `window` values around each one, over fewer at the two ends."""
    # Dividing by how many values took part keeps the ends from sagging towards zero.
    counts = np.convolve(np.ones_like(values), np.ones(window), mode="same")
    return np.convolve(values, np.ones(window), mode="same") / counts
