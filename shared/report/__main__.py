"""Write one HTML page about training runs, side by side: `python -m shared.report runs/*`.

What they are, their samples with a slider over time, losses, quality of the samples, and all
settings with the differences marked. The page holds everything itself and fetches nothing. Runs
that are still going on are shown as far as they are. Bad input is exit code 2.
"""

import argparse
import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from shared.files.atomic import require_place, write_file_atomically
from shared.files.errors import InputError, printable
from shared.interface import METRIC_NAMES, Array
from shared.report.page import OUTSIDE, draw_panel, render, run_style
from shared.report.runs import DATASET, LOSS, Run, compare_settings, headline, read_runs
from shared.run.console import command
from shared.run.pictures import averaging_window

PROGRAM = "python -m shared.report"
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
        colour, dashes = run_style(number)
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
        outside=OUTSIDE,
        other_losses=LOSS in differing,
        other_data=DATASET in differing,
        loss_panels={n: draw_panel(losses, n, averaged=True) for n in METRIC_NAMES},
        distance_panel=draw_panel(qualities, QUALITY),
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


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run: training's --out")
    help_of_out = "the page; one that is there is replaced (default: %(default)s)"
    add("--out", type=Path, default=Path("report.html"), metavar="PAGE", help=help_of_out)


def _write_report(options: argparse.Namespace) -> None:
    out = options.out
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {out}: expected a name that ends in .html")
    require_place(out)
    runs = read_runs(options.runs)
    command_line = shlex.join([*PROGRAM.split(), *map(str, options.runs), "--out", str(out)])
    page = make_page(runs, command_line).encode()
    write_file_atomically(out, page)
    noun = "run" if len(runs) == 1 else "runs"
    print(f"wrote {printable(out)}: {len(runs)} {noun}, {len(page) / 1e6:.1f} MB")


main = command(PROGRAM, __doc__, _add_options, _write_report)

if __name__ == "__main__":
    sys.exit(main())
