"""The accuracy of the losses, ours and the frameworks' own: `python -m shared.accuracy`.

About a thousand scores per loss and target, value and gradient, against 50-digit arithmetic.
ULP are units in the last place of the truth in the dtype of the scores. Where a loss near zero
makes them explode, ε is the same error with a unit never below that of 1.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.metadata
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from shared.interface import IMPLEMENTATIONS, load_implementation
from shared.reference.comparison import ExactNumber
from shared.run.console import run_command
from shared.studies.accuracy_sweep import (
    DTYPES,
    EXPLODED,
    OURS,
    TARGETS,
    Error,
    Formula,
    batches_of_one,
    exact,
    measure,
)
from shared.studies.common import use_cpu

TITLES = {
    "bce": "bce and minimax, on logits x",
    "bce_probs": "bce_probs, on probabilities p",
    "lsgan": "lsgan, on scores x",
}
# Scores of which each loss is also shown by itself, in float32.
SPECIAL_SCORES = {"bce": (0.0, np.inf, -np.inf, np.nan), "bce_probs": (0.0, 1.0, np.nan)}
PACKAGES = ("torch", "tensorflow", "keras", "jax", "optax", "numpy")
BOTH = " and "  # between the ways to run a formula that gave one and the same row
START, END = "<!-- accuracy: begin -->", "<!-- accuracy: end -->"

# Another processor has other vector instructions: a figure of the docs may be off by this.
CHECK_ABSOLUTE, CHECK_RELATIVE = 0.5, 0.5


@functools.cache
def load_formulas(name: str) -> list[Formula]:
    """Return an implementation's `loss_formulas()`, or anybody's `loss` in batches of one."""
    implementation = load_implementation(name)
    offered = getattr(implementation, "loss_formulas", None)
    return offered() if offered else batches_of_one(implementation)


Table = list[list[str]]  # the first row is the header


def make_tables(formulas: Sequence[Formula]) -> dict[str, Table]:
    """Return all tables by title."""
    tables: dict[str, Table] = {}
    for loss, title in TITLES.items():
        rows = [f for f in formulas if f.loss == loss]
        tables[title] = _merge(list(_accuracy_rows(rows)))
        if loss in SPECIAL_SCORES:
            single = _merge(list(_special_rows(loss, rows)))
            tables[f"{title}: single scores, value / gradient"] = single
    return tables


def _accuracy_rows(formulas: Sequence[Formula]) -> Iterator[list[str]]:
    figures = [f"{dtype} {kind}" for dtype in DTYPES for kind in ("value", "gradient")]
    yield ["framework", "formula", "run", *figures]
    for f in formulas:
        errors = [error for dtype in DTYPES for error in measure(f, dtype)]
        yield [f.framework, f.name, f.run, *(_cell(f.loss, error) for error in errors)]


def _merge(rows: Sequence[list[str]]) -> Table:
    """Return rows with those in one that differ only in how the formula was run."""
    merged: Table = []
    for framework, name, run, *cells in rows:
        last = merged[-1] if merged else []
        if [last[:2], last[3:]] == [[framework, name], cells]:
            last[2] += f"{BOTH}{run}"
        else:
            merged.append([framework, name, run, *cells])
    return merged


def _cell(loss: str, error: Error) -> str:
    variable = "p" if loss == "bce_probs" else "x"
    place = f"{variable} = {error.score:.4g}, y = {error.target:.0f}"
    if error.ulp > EXPLODED:
        return f"{error.ulp:.1e} ({place}; {error.epsilons:.3g} ε)"
    return f"{error.ulp:.2f} ({place})"


def _special_rows(loss: str, formulas: Sequence[Formula]) -> Iterator[list[str]]:
    *scores, nan = SPECIAL_SCORES[loss]
    cases = [*itertools.product(TARGETS, scores), (TARGETS[0], nan)]
    truths = [exact(loss, x, y) for y, x in cases]
    variable = "p" if loss == "bce_probs" else "x"
    header = [f"{variable} = {x:g}, y = {y:.0f}" for y, x in cases]
    yield ["framework", "formula", "run", *header]
    yield ["", "truth", "", *(f"{_short(v)} / {_short(g)}" for v, g in truths)]
    for f in formulas:
        results = [r for y in TARGETS for r in _special_results(f, scores, y)]
        results += _special_results(f, [nan], TARGETS[0])
        cells = (_special_cell(r, t) for r, t in zip(results, truths, strict=True))
        yield [f.framework, f.name, f.run, *cells]


def _special_results(
    formula: Formula, scores: Sequence[float], target: float
) -> list[tuple[float, float] | str]:
    try:
        results = formula.evaluate(np.array(scores), target, "float32")
    except RuntimeError as error:  # torch's of a probability that is none
        return [type(error).__name__] * len(scores)
    return [(float(v), float(g)) for v, g in zip(*results, strict=True)]


def _special_cell(result: tuple[float, float] | str, truth: tuple[ExactNumber, ExactNumber]) -> str:
    if isinstance(result, str):
        return f"{result} ✗"
    return " / ".join(_judged(r, t) for r, t in zip(result, truth, strict=True))


def _short(number: ExactNumber) -> str:
    return f"{float(number) + 0.0:.4g}"  # + 0.0: no negative zero


def _judged(actual: float, truth: ExactNumber) -> str:
    expected = float(truth)
    right = actual == expected or np.isclose(actual, expected, 1e-5, 1e-37, equal_nan=True)
    return _short(actual) + ("" if right else " ✗")


def to_markdown(tables: dict[str, Table]) -> str:
    """Return the tables as they stand in docs/losses.md between the two markers."""
    lines = [START, "", f"Measured with {_versions()}."]
    for title, (header, *rows) in tables.items():
        lines += ["", f"### {title}", "", _row(header), _row(["---"] * len(header))]
        lines += [_row(row) for row in rows]
    return "\n".join([*lines, "", END])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(f'**{c}**' if c == OURS else c for c in cells)} |"


def _versions() -> str:
    found = []
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join(found)


def to_text(tables: dict[str, Table]) -> str:
    """Return the tables with aligned columns."""
    lines = []
    for title, rows in tables.items():
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += ["", title, ""]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join(cells).rstrip())
    return "\n".join(lines[1:])


def from_markdown(text: str) -> dict[str, Table]:
    """Return the tables between the markers; a text without them is a ValueError."""
    if text.count(START) != 1 or text.count(END) != 1:
        raise ValueError(f"expected the markers {START!r} and {END!r} once each")
    tables: dict[str, Table] = {}
    for line in text.split(START)[1].split(END)[0].splitlines():
        if line.startswith("### "):
            tables[line.removeprefix("### ")] = rows = []
        elif line.startswith("| ") and not line.startswith("| ---"):
            rows.append([cell.strip(" *") for cell in line.strip("|").split(" | ")])
    return tables


def differences(found: dict[str, Table], printed: dict[str, Table]) -> list[str]:
    """Return where tables in the docs differ from measured ones by more than the stated bound."""
    wrong = []
    for title, rows in printed.items():
        keyed, expected = _by_run(found.get(title, [])), _by_run(rows)
        frameworks = {key[0] for key in expected}
        for key in [k for k in (keyed | expected) if k[0] in frameworks]:
            cells, measured = keyed.get(key, []), expected.get(key, [])
            if len(cells) != len(measured):
                wrong.append(f"{title}: {key}: {len(cells)} cells instead of {len(measured)}")
                continue
            wrong += [
                f"{title}: {key}: {old!r} instead of {new!r}"
                for old, new in zip(cells, measured, strict=True)
                if not _agree(old, new)
            ]
    return wrong


def _by_run(rows: Table) -> dict[tuple[str, str, str], list[str]]:
    return {(row[0], row[1], run): row[3:] for row in rows for run in row[2].split(BOTH)}


def _agree(old: str, new: str) -> bool:
    """Compare the ULP and ε of two cells, whatever the score where they were found."""
    pattern = r"^([\d.e+]+|inf) \(|; ([\d.e+]+|inf) ε\)"
    numbers = [[float(m[1] or m[2]) for m in re.finditer(pattern, cell)] for cell in (old, new)]
    if not numbers[0] or len(numbers[0]) != len(numbers[1]):
        return old == new
    return all(
        a == b or abs(a - b) <= CHECK_ABSOLUTE + CHECK_RELATIVE * max(a, b)
        for a, b in zip(*numbers, strict=True)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or compare them with those of a file.

    Exit code 1 where they differ, 2 where a framework is missing.
    """
    parser = argparse.ArgumentParser(prog="python -m shared.accuracy", description=__doc__)
    parser.add_argument("implementations", nargs="*", default=list(IMPLEMENTATIONS))
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--markdown", action="store_true", help="print the block of docs/losses.md")
    how.add_argument("--check", type=Path, metavar="FILE", help="compare with the tables of FILE")
    options = parser.parse_args(arguments)

    def work() -> int:
        use_cpu()  # whose figures they are
        printed = options.check and from_markdown(options.check.read_text("utf-8"))
        formulas = [f for name in options.implementations for f in load_formulas(name)]
        tables = make_tables(formulas)
        if printed is None:
            print(to_markdown(tables) if options.markdown else to_text(tables))
            return 0
        wrong = differences(printed, tables)
        print("\n".join(wrong) or f"{options.check}: the tables are those measured here")
        return 1 if wrong else 0

    return run_command(parser.prog, work)
