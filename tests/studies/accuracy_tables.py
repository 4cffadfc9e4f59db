"""The tables of docs/losses.md: `python -m tests.studies.accuracy_tables` prints them.

About a thousand scores per loss and target, value and gradient, against 50-digit arithmetic.
"""

import contextlib
import functools
import importlib
import importlib.metadata
import itertools
import re
from collections.abc import Sequence

import numpy as np

from shared.fixtures.exact_losses import exact_loss
from shared.interface import IMPLEMENTATIONS, use_cpu
from shared.reference.comparison import ExactNumber
from shared.studies import accuracy
from shared.studies.accuracy import DTYPES, TARGETS
from tests.studies.stock_losses import OURS, Formula

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
    """Return the formulas of a framework, our losses among them."""
    return importlib.import_module(f"tests.studies.stock_losses.{name}").loss_formulas()


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
            for error in itertools.chain(
                *(accuracy.measure(f.loss, f.evaluate, dtype) for dtype in DTYPES)
            ):
                place = f"{VARIABLES[loss]} = {error.score:.4g}, y = {error.target:.0f}"
                exploded = error.ulp > accuracy.EXPLODED
                place += f"; {error.epsilons:.3g} ε" if exploded else ""
                cells.append(f"{error.ulp:{'.1e' if exploded else '.2f'}} ({place})")
        if loss in SPECIAL_SCORES:
            tables[f"{title}: single scores, value / gradient"] = _special_table(loss, rows)
    return tables


def _special_table(loss: str, formulas: Sequence[Formula]) -> Table:
    *scores, nan = SPECIAL_SCORES[loss]
    cases = [*itertools.product(TARGETS, scores), (TARGETS[0], nan)]
    truths = [exact_loss(loss, x, y) for y, x in cases]
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
    truth = exact_loss(formula.loss, score, target)
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


START, END = "<!-- accuracy: begin -->", "<!-- accuracy: end -->"

# Another processor has other vector instructions: a figure of the docs may be off by this.
CHECK_ABSOLUTE, CHECK_RELATIVE = 0.5, 0.5


def from_markdown(text: str) -> dict[str, Table]:
    """Return the tables of `to_markdown`; in a document they stand between two markers."""
    tables: dict[str, Table] = {}
    for line in text.split(START)[-1].split(END)[0].splitlines():
        if line.startswith("### "):
            table: Table = {}
            tables[line.removeprefix("### ")] = table
        elif line.startswith("| ") and not line.startswith("| ---"):
            cells = [cell.strip(" *") for cell in line.strip("|").split(" | ")]
            framework, formula, runs, *rest = cells
            table |= {(framework, formula, run): rest for run in runs.split(BOTH)}
    return tables


def differences(documented: dict[str, Table], measured: dict[str, Table]) -> list[str]:
    """Return where tables of the docs differ from measured ones by more than the stated bound."""
    wrong = []
    for title, table in measured.items():
        other, frameworks = documented.get(title, {}), {framework for framework, *_ in table}
        for key in [key for key in other | table if key[0] in frameworks]:
            pairs = itertools.zip_longest(other.get(key, ()), table.get(key, ()), fillvalue="")
            for old, new in itertools.filterfalse(_agree, pairs):
                wrong.append(f"{title}: {key}: {old!r} instead of {new!r}")
    return wrong


def _agree(cells: tuple[str, str]) -> bool:
    """Compare the ULP and ε of two cells, whatever the score where they were found."""
    pattern = r"^([\d.e+]+|inf) \(|; ([\d.e+]+|inf) ε\)"
    numbers = [[float(m[1] or m[2]) for m in re.finditer(pattern, cell)] for cell in cells]
    if not numbers[0] or len(numbers[0]) != len(numbers[1]):
        return cells[0] == cells[1]
    return all(
        a == b or abs(a - b) <= CHECK_ABSOLUTE + CHECK_RELATIVE * max(a, b)
        for a, b in zip(*numbers, strict=True)
    )


if __name__ == "__main__":
    use_cpu()  # whose figures they are
    print(to_markdown(make_tables([f for name in IMPLEMENTATIONS for f in load_formulas(name)])))
