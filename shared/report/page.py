"""The page of a report: what its template shows of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shared.report import plots
from shared.report.grids import MOST_BYTES, choose_grids
from shared.report.rendering import render
from shared.report.runs import Run
from shared.report.settings import (
    DATASET,
    LOSS,
    compare_settings,
    headline,
)
from shared.run.tensorboard import TAGS

QUALITY = "swd"


def make_page(runs: Sequence[Run], command: str) -> str:
    """Return the whole page; `command` is what makes it again. OSError for unreadable files."""
    settings = compare_settings(runs)
    differing = {(setting.group, setting.name) for setting in settings if setting.differs}
    shown: list[dict[str, Any]] = []
    for number, run in enumerate(runs):
        grids, notes = choose_grids(run, MOST_BYTES / len(runs))
        colour, dashes = plots.run_style(number)
        shown.append({"run": run, "colour": colour, "dashes": dashes, "grids": grids})
        shown[-1]["notes"] = [*run.notes, *notes]
    windows = {plots.averaging_window(len(run.losses)) for run in runs if len(run.losses)}
    lines = plots.quality_lines(runs, QUALITY)
    values = [dict(run.quality[["step", QUALITY]].tolist()) for run in runs]
    return render(
        "report.html",
        title=f"Training: {', '.join(run.name for run in runs)}",
        command=command,
        runs=shown,
        headline=_rows([headline(run) for run in runs]),
        stops=sorted({grid.step for run in shown for grid in run["grids"]}),
        windows=sorted(windows),
        outside=plots.OUTSIDE,
        other_losses=LOSS in differing,
        other_data=DATASET in differing,
        loss_panels=[
            plots.draw_panel(tag, plots.loss_lines(runs, name))
            for name, tag in TAGS.items()
            if windows
        ],
        distance_panel=plots.draw_panel(QUALITY, lines) if lines else "",
        first_best_last=_rows([_first_best_last(run.quality) for run in runs]),
        distances=[
            (f"{step:,}", [f"{one[step]:.1f}" if step in one else "" for one in values])
            for step in sorted(set().union(*values))
        ],
        settings=settings,
    )


def _rows(columns: Sequence[dict[str, str]]) -> list[tuple[str, list[str]]]:
    return [(name, [column[name] for column in columns]) for name in columns[0]]


def _first_best_last(quality: np.ndarray) -> dict[str, str]:
    finite = quality[np.isfinite(quality[QUALITY])]
    best = np.sort(finite, order=QUALITY)[:1]
    return {
        name: "".join(f"{row[QUALITY]:.1f} (step {row['step']:,})" for row in rows)
        for name, rows in (("first", quality[:1]), ("best", best), ("last", quality[-1:]))
    }
