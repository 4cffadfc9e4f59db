"""The page of a report. Nothing is fetched, and nothing but its own script may run in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from shared.interface import METRIC_NAMES
from shared.report import plots
from shared.report.grids import MOST_BYTES, ChosenGrids, choose_grids, grids_html
from shared.report.headline import headline
from shared.report.look import SCRIPT, STYLE
from shared.report.runs import Run
from shared.report.settings import Setting, compare_settings, differences_in_words
from shared.run.tensorboard import TAGS

FEW_ROWS = 12
QUALITY = "swd"
_DIGEST = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode("ascii")
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    f"script-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'"
)


def make_page(runs: Sequence[Run], command: str) -> str:
    """Return the whole page; `command` is what makes it again. OSError for unreadable files."""
    settings = compare_settings(runs)
    chosen = [choose_grids(run, MOST_BYTES / len(runs)) for run in runs]
    title = f"Training: {', '.join(run.name for run in runs)}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        *_verdicts(runs, settings),
        _headline_table(runs),
        *_notes(runs, chosen),
        "<h2>Samples</h2>",
        grids_html(runs, chosen),
        *_losses(runs),
        *_quality(runs),
        *_settings(runs, settings),
        f'<p class="pale">Made by <code>{escape(command)}</code></p>',
    ]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n"
        f"<script>{SCRIPT}</script>\n</body></html>\n"
    )


def _verdicts(runs: Sequence[Run], settings: Sequence[Setting]) -> Iterator[str]:
    if len(runs) > 1:
        yield f'<p class="verdict">{escape(differences_in_words(settings))}</p>'


def _headline_table(runs: Sequence[Run]) -> str:
    columns = [headline(run) for run in runs]
    rows = [(name, [column[name] for column in columns]) for name in columns[0]]
    return _table("", _run_heads(runs), rows)


def _notes(runs: Sequence[Run], chosen: Sequence[ChosenGrids]) -> Iterator[str]:
    lines = [
        f"<li>{escape(run.name)}: {escape(note)}</li>"
        for run, one in zip(runs, chosen, strict=True)
        for note in (*run.notes, *one.notes)
    ]
    if lines:
        yield f'<ul class="notes">\n{chr(10).join(lines)}\n</ul>'


# --- losses and quality ------------------------------------------------------------------------


def _losses(runs: Sequence[Run]) -> Iterator[str]:
    yield "<h2>Losses</h2>"
    if not any(len(run.losses) for run in runs):
        yield "<p>No step is recorded yet.</p>"
        return
    yield _legend(runs)
    yield f'<p class="pale">{escape(_how_drawn(runs))}</p>'
    yield '<div class="panels">'
    for metric in METRIC_NAMES:
        limits = plots.loss_limits(runs, metric)
        yield plots.draw_panel(TAGS[metric], plots.loss_lines(runs, metric), limits)
    yield "</div>"


def _how_drawn(runs: Sequence[Run]) -> str:
    windows = {plots.averaging_window(len(run.losses)) for run in runs if len(run.losses)}
    sizes = " or ".join(f"{window:,}" for window in sorted(windows))
    text = "Every step." if windows == {1} else f"Pale: every step. Over it: mean of {sizes} steps."
    if max(len(run.losses) for run in runs) > plots.MOST_POINTS:
        text += " Of long runs the highest and lowest value of every stretch is drawn."
    if windows != {1}:
        text += f" The {plots.OUTSIDE:g} % highest and lowest may lie outside."
    if len({run.spec.get("loss") for run in runs}) > 1:
        text += " The runs have different losses, so their values cannot be compared."
    return text


def _quality(runs: Sequence[Run]) -> Iterator[str]:
    yield "<h2>Quality of the samples</h2>"
    if not any(len(run.quality) for run in runs):
        yield "<p>No run has a quality.csv with a value.</p>"
        return
    text = (
        "swd: sliced Wasserstein distance x 1000 of the grid's samples to as many real images. 0 "
        "is the best; differences of less than about 10 mean nothing."
    )
    if len({run.sessions[-1].get("dataset") for run in runs}) > 1:
        text += " The runs have different data, so their values cannot be compared."
    yield f"<p>{escape(text)}</p>"
    lines = plots.quality_lines(runs, QUALITY)
    if lines:
        yield _legend(runs)
        yield f'<div class="panels">{plots.draw_panel(QUALITY, lines)}</div>'
    yield from _quality_tables(runs)


def _quality_tables(runs: Sequence[Run]) -> Iterator[str]:
    columns = [_first_best_last(run) for run in runs]
    yield _table("", _run_heads(runs), [(name, [c[name] for c in columns]) for name in columns[0]])
    values = [
        dict(zip(run.quality.steps.tolist(), run.quality.values[QUALITY], strict=True))
        for run in runs
    ]
    steps = sorted(set().union(*values))
    rows = [
        (f"{step:,}", [f"{one[step]:.1f}" if step in one else "" for one in values])
        for step in steps
    ]
    shown = " open" if len(rows) <= FEW_ROWS else ""
    yield f"<details{shown}><summary>Every value</summary>"
    yield _table("step", _run_heads(runs), rows)
    yield "</details>"


def _first_best_last(run: Run) -> dict[str, str]:
    steps, values = run.quality.steps, run.quality.values[QUALITY]
    finite = np.flatnonzero(np.isfinite(values))
    places = {
        "first": 0 if len(values) else None,
        "best": int(finite[values[finite].argmin()]) if len(finite) else None,
        "last": len(values) - 1 if len(values) else None,
    }
    return {
        name: "" if place is None else f"{values[place]:.1f} (step {steps[place]:,})"
        for name, place in places.items()
    }


# --- settings ----------------------------------------------------------------------------------


def _settings(runs: Sequence[Run], settings: Sequence[Setting]) -> Iterator[str]:
    yield "<h2>Settings</h2>"
    if len(runs) > 1:
        count = sum(setting.differs for setting in settings)
        yield f"<p>{count} of {len(settings)} differ between the runs; they are marked ≠.</p>"
    yield f"<table>\n<thead><tr><th></th>{_run_heads(runs)}</tr></thead>\n<tbody>"
    group = ""
    for setting in settings:
        if setting.group != group:
            group = setting.group
            yield f'<tr class="group"><th colspan="{len(runs) + 1}">{escape(group)}</th></tr>'
        mark = ' class="differs"' if setting.differs else ""
        yield f"<tr{mark}>{_row(setting.name, setting.values)}</tr>"
    yield "</tbody></table>"


# --- parts -------------------------------------------------------------------------------------


def _run_heads(runs: Sequence[Run]) -> str:
    return "".join(
        f'<th class="text">{_swatch(number)}{escape(run.name)}</th>'
        for number, run in enumerate(runs)
    )


def _legend(runs: Sequence[Run]) -> str:
    items = "".join(f"<li>{_swatch(n)}{escape(run.name)}</li>" for n, run in enumerate(runs))
    return f'<ul class="legend">{items}</ul>'


def _swatch(number: int) -> str:
    """Return a piece of a run's line, as the plots have it."""
    colour, dashes = plots.run_style(number)
    pattern = " ".join(f"{float(dash) * 2.4:g}" for dash in dashes.split())
    dashed = f' stroke-dasharray="{pattern}"' if pattern else ""
    return (
        '<svg viewBox="0 0 40 10" aria-hidden="true"><line x1="0" y1="5" x2="40" y2="5" '
        f'stroke="{colour}" stroke-width="2.4"{dashed}></line></svg>'
    )


def _table(corner: str, heads: str, rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    body = "\n".join(f"<tr>{_row(name, values)}</tr>" for name, values in rows)
    return (
        f"<table>\n<thead><tr><th>{escape(corner)}</th>{heads}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table>"
    )


def _row(name: str, values: Sequence[str]) -> str:
    cells = "".join(f'<td class="text">{escape(value)}</td>' for value in values)
    return f'<th scope="row">{escape(name)}</th>{cells}'
