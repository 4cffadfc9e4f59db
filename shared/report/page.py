"""The page of a report, its sample grids, and the templates that the benchmark's page shares."""

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

from shared.files.errors import printable
from shared.interface import METRIC_NAMES, Array
from shared.report import plots
from shared.report.runs import DATASET, LOSS, Run, compare_settings, headline
from shared.run.pictures import averaging_window

COMMON_TEMPLATES = "shared.report"
QUALITY = "swd"

MOST_GRIDS = 60  # of all runs of a page together
LARGEST_SIDE = 1200  # pixels; a page shows a grid at half of it, sharp on a fine screen too


def make_page(runs: Sequence[Run], command: str) -> str:
    """Return the whole page; `command` is what makes it again. OSError for unreadable files."""
    settings = compare_settings(runs)
    differing = {(setting.group, setting.name) for setting in settings if setting.differs}
    shown: list[dict[str, Any]] = []
    for number, run in enumerate(runs):
        grids, notes = choose_grids(run, MOST_GRIDS // len(runs))
        colour, dashes = plots.run_style(number)
        shown.append({"run": run, "colour": colour, "dashes": dashes, "grids": grids})
        shown[-1]["notes"] = [*run.notes, *notes]
    losses, qualities = [run.losses for run in runs], [run.quality for run in runs]
    windows = {averaging_window(len(table)) for table in losses if len(table)}
    values = [dict(table[["step", QUALITY]].tolist()) for table in qualities]
    return render(
        "report.html",
        title=f"Training: {', '.join(run.name for run in runs)}",
        command=command,
        runs=shown,
        headline=_rows([*map(headline, runs)]),
        stops=sorted({grid.step for run in shown for grid in run["grids"]}),
        windows=sorted(windows),
        outside=plots.OUTSIDE,
        other_losses=LOSS in differing,
        other_data=DATASET in differing,
        loss_panels={n: plots.draw_panel(losses, n, averaged=True) for n in METRIC_NAMES},
        distance_panel=plots.draw_panel(qualities, QUALITY),
        first_best_last=_rows([*map(_first_best_last, qualities)]),
        distances=[
            (f"{step:,}", [f"{one[step]:.1f}" if step in one else "" for one in values])
            for step in sorted(set().union(*values))
        ],
        settings=settings,
    )


def _rows(columns: Sequence[dict[str, str]]) -> list[tuple[str, list[str]]]:
    return [(name, [column[name] for column in columns]) for name in columns[0]]


def _first_best_last(quality: Array) -> dict[str, str]:
    finite = quality[np.isfinite(quality[QUALITY])]
    best = np.sort(finite, order=QUALITY)[:1]
    return {
        name: "".join(f"{row[QUALITY]:.1f} (step {row['step']:,})" for row in rows)
        for name, rows in (("first", quality[:1]), ("best", best), ("last", quality[-1:]))
    }


class Grid(NamedTuple):
    """One grid that goes into the page, as WebP; width and height in pixels."""

    step: int
    content: bytes
    width: int
    height: int


def choose_grids(run: Run, most: int) -> tuple[list[Grid], list[str]]:
    """Read at most so many grids, evenly chosen, the last among them; notes on those left out."""
    grids, notes = [], []
    files = list(run.grids.items())
    chosen = evenly(len(files), min(len(files), max(most, 1)))
    if len(chosen) < len(files):
        shown = f"{len(chosen)} of {len(files):,} sample grids are shown, evenly chosen"
        notes.append(f"{shown}; all are in {run.name}/samples.")
    for step, path in (files[index] for index in chosen):
        try:
            with Image.open(path, formats=["PNG"]) as image:
                image.verify()
            with Image.open(path, formats=["PNG"]) as image:
                image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
                buffer = io.BytesIO()
                # A sixth of a PNG, with the chroma that quality 80 would blur.
                image.save(buffer, "WEBP", quality=90, use_sharp_yuv=True)
                grids.append(Grid(step, buffer.getvalue(), *image.size))
        # What Pillow raises for a damaged PNG.
        except (OSError, SyntaxError, ValueError) as error:
            reason = " ".join(str(error).split()).replace(str(path), "the file")
            notes.append(f"{path.name} cannot be read and is left out ({reason}).")
    return grids, notes


def evenly(total: int, count: int) -> list[int]:
    """Return `count` of the indices below `total`, evenly spaced, the last always among them."""
    return sorted(set(np.linspace(total - 1, 0, count).round().astype(int).tolist()))


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
    environment.filters["source"] = lambda image, kind: (
        f"data:image/{kind};base64," + base64.b64encode(image).decode("ascii")
    )
    return environment.get_template(template).render(values)
