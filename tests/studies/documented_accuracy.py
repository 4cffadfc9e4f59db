"""The tables of docs/losses.md held against those that are measured."""

import itertools
import re

from shared.studies.accuracy import BOTH, Table

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
