"""The page of a report: what its template shows of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from shared.report import plots
from shared.report.grids import MOST_BYTES, choose_grids
from shared.report.rendering import render
from shared.report.runs import Run
from shared.report.settings import (
    DATASET,
    LOSS,
    compare_settings,
    differences_in_words,
    headline,
)
from shared.run.tensorboard import TAGS

QUALITY = "swd"


def make_page(runs: Sequence[Run], command: str) -> str:
    """Return the whole page; `command` is what makes it again. OSError for unreadable files."""
    settings = compare_settings(runs)
    differing = {(setting.group, setting.name) for setting in settings if setting.differs}
    columns = [headline(run) for run in runs]
    shown: list[dict[str, Any]] = []
    remarks: list[str] = []
    for number, run in enumerate(runs):
        grids, notes = choose_grids(run, MOST_BYTES / len(runs))
        colour, dashes = plots.run_style(number)
        shown.append({"name": run.name, "colour": colour, "dashes": dashes, "grids": grids})
        remarks += [f"{run.name}: {note}" for note in (*run.notes, *notes)]
    rows = [len(run.losses) for run in runs]
    return render(
        "report.html",
        title=f"Training: {', '.join(run.name for run in runs)}",
        command=command,
        runs=shown,
        differences=differences_in_words(settings),
        headline=[(name, [column[name] for column in columns]) for name in columns[0]],
        remarks=remarks,
        stops=sorted({grid.step for run in shown for grid in run["grids"]}),
        windows=sorted({plots.averaging_window(count) for count in rows if count}),
        is_thinned=max(rows) > plots.MOST_POINTS,
        outside=plots.OUTSIDE,
        other_losses=LOSS in differing,
        other_data=DATASET in differing,
        loss_panels=_loss_panels(runs) if any(rows) else [],
        settings=settings,
        **_quality(runs),
    )


def _loss_panels(runs: Sequence[Run]) -> list[Markup]:
    return [
        plots.draw_panel(tag, plots.loss_lines(runs, name), plots.loss_limits(runs, name))
        for name, tag in TAGS.items()
    ]


def _quality(runs: Sequence[Run]) -> dict[str, Any]:
    lines = plots.quality_lines(runs, QUALITY)
    columns = [_first_best_last(run) for run in runs]
    values = [dict(run.quality[["step", QUALITY]].tolist()) for run in runs]
    return {
        "distance_panel": plots.draw_panel(QUALITY, lines) if lines else "",
        "first_best_last": [(name, [c[name] for c in columns]) for name in columns[0]],
        "distances": [
            (f"{step:,}", [f"{one[step]:.1f}" if step in one else "" for one in values])
            for step in sorted(set().union(*values))
        ],
    }


def _first_best_last(run: Run) -> dict[str, str]:
    finite = run.quality[np.isfinite(run.quality[QUALITY])]
    found = {
        "first": run.quality[:1],
        "best": np.sort(finite, order=QUALITY)[:1],
        "last": run.quality[-1:],
    }
    return {
        name: "".join(f"{row[QUALITY]:.1f} (step {row['step']:,})" for row in rows)
        for name, rows in found.items()
    }
