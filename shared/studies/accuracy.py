"""The accuracy of the losses, ours and the frameworks' own: `python -m shared.accuracy`.

About a thousand scores per loss and target, value and gradient, against 50-digit arithmetic.
ULP are units in the last place of the truth in the dtype of the scores. Where a loss near zero
makes them explode, ε is the same error with a unit never below that of 1. The tables are Markdown.
The exit code is 2 for bad input or a missing framework.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import itertools
from collections.abc import Sequence

import numpy as np

from shared.interface import IMPLEMENTATIONS, load_implementation, use_cpu
from shared.reference.comparison import ExactNumber
from shared.run.console import command
from shared.studies import accuracy_sweep as sweep
from shared.studies.accuracy_sweep import DTYPES, OURS, TARGETS, Formula

TITLES = {
    "bce": "bce and minimax, on logits x",
    "bce_probs": "bce_probs, on probabilities p",
    "lsgan": "lsgan, on scores x",
}
VARIABLES = {"bce": "x", "bce_probs": "p", "lsgan": "x"}
# Scores of which each loss is also shown by itself, in float32.
SPECIAL_SCORES = {"bce": (0.0, np.inf, -np.inf, np.nan), "bce_probs": (0.0, 1.0, np.nan)}
PACKAGES = ("torch", "tensorflow", "keras", "jax", "optax", "numpy")
BOTH = " and "  # between the ways to run a formula that gave one and the same row


@functools.cache
def load_formulas(name: str) -> list[Formula]:
    """Return an implementation's `loss_formulas()`, its own losses among them."""
    formulas = getattr(load_implementation(name), "loss_formulas", None)
    if formulas is None:
        raise ValueError(f"{name} has no loss_formulas(); expected {', '.join(IMPLEMENTATIONS)}")
    return formulas()


Key = tuple[str, str, str]
HEADER: Key = ("framework", "formula", "run")
Table = dict[Key, list[str]]
"""The cells of a row by its framework, formula and run; HEADER has the titles."""


def make_tables(formulas: Sequence[Formula]) -> dict[str, Table]:
    """Return all tables by title."""
    tables: dict[str, Table] = {}
    for loss, title in TITLES.items():
        rows = [f for f in formulas if f.loss == loss]
        header = [f"{dtype} {kind}" for dtype in DTYPES for kind in ("value", "gradient")]
        tables[title] = {HEADER: header}
        for f in rows:
            cells = tables[title][f.framework, f.name, f.run] = []
            for error in itertools.chain(*(sweep.measure(f, dtype) for dtype in DTYPES)):
                place = f"{VARIABLES[loss]} = {error.score:.4g}, y = {error.target:.0f}"
                exploded = error.ulp > sweep.EXPLODED
                place += f"; {error.epsilons:.3g} ε" if exploded else ""
                cells.append(f"{error.ulp:{'.1e' if exploded else '.2f'}} ({place})")
        if loss in SPECIAL_SCORES:
            tables[f"{title}: single scores, value / gradient"] = _special_table(loss, rows)
    return tables


def _special_table(loss: str, formulas: Sequence[Formula]) -> Table:
    *scores, nan = SPECIAL_SCORES[loss]
    cases = [*itertools.product(TARGETS, scores), (TARGETS[0], nan)]
    truths = [sweep.exact(loss, x, y) for y, x in cases]
    table = {
        HEADER: [f"{VARIABLES[loss]} = {x:g}, y = {y:.0f}" for y, x in cases],
        ("", "truth", ""): [f"{_short(v)} / {_short(g)}" for v, g in truths],
    }
    for f in formulas:
        table[f.framework, f.name, f.run] = [_special_cell(f, x, y) for y, x in cases]
    return table


def _special_cell(formula: Formula, score: float, target: float) -> str:
    try:
        results = formula.evaluate(np.array([score]), target, "float32")
    except RuntimeError as error:  # torch's of a probability that is none
        return f"{type(error).__name__} ✗"
    truth = sweep.exact(formula.loss, score, target)
    return " / ".join(_judged(float(r[0]), float(t)) for r, t in zip(results, truth, strict=True))


def _short(number: ExactNumber) -> str:
    return f"{float(number) + 0.0:.4g}"  # + 0.0: no negative zero


def _judged(actual: float, expected: float) -> str:
    right = actual == expected or np.isclose(actual, expected, 1e-5, 1e-37, equal_nan=True)
    return _short(actual) + ("" if right else " ✗")


def _merged(table: Table) -> list[list[str]]:
    """Return rows, with those in one that differ only in how the formula was run."""
    same = itertools.groupby(table.items(), lambda row: (*row[0][:2], row[1]))
    return [
        [framework, formula, BOTH.join(run for (*_, run), _ in rows), *cells]
        for (framework, formula, cells), rows in same
    ]


def to_markdown(tables: dict[str, Table]) -> str:
    """Return the tables as they are in docs/losses.md."""
    versions = []
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    lines = [f"Measured with {', '.join(versions)}."]
    for title, table in tables.items():
        header, *rows = _merged(table)
        lines += ["", f"### {title}", "", _line(header), _line(["---"] * len(header))]
        lines += map(_line, rows)
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(f'**{c}**' if c == OURS else c for c in cells)} |"


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("implementations", nargs="*", default=list(IMPLEMENTATIONS))


def _run(options: argparse.Namespace) -> None:
    use_cpu()  # whose figures they are
    formulas = [f for name in options.implementations for f in load_formulas(name)]
    print(to_markdown(make_tables(formulas)))


main = command("python -m shared.accuracy", __doc__, _add_options, _run)
