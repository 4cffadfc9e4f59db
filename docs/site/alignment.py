"""Which lines of the three implementations correspond: by function first, then line by line."""

import ast
import functools
import itertools
import re
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
COLUMNS = {"pytorch": "PyTorch", "tf": "TensorFlow", "jax": "JAX"}
HEAD = "Imports and constants"
"""Name of what stands above the first function of a file."""
_LEAST_ALIKE = 0.4
_BLANK = 0.05  # of two blank lines: no evidence, but it decides where nothing else does


class Definition(NamedTuple):
    """A function or class with whatever follows it up to the next one; `start` is from 1."""

    start: int
    lines: tuple[str, ...]


Row = tuple[int | None, ...]
"""Lines that correspond: an index into the lines of each column, or None."""


@functools.cache
def definitions(path: str) -> dict[str, Definition]:
    """Return the definitions of a file by name, in order; together they are the whole file."""
    lines = (ROOT / path).read_text("utf-8").splitlines()
    starts = {HEAD: 1}
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            starts[node.name] = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    bounds = itertools.pairwise([*starts.values(), len(lines) + 1])
    texts = ("\n".join(lines[start - 1 : end - 1]).rstrip() for start, end in bounds)
    return {
        name: Definition(start, tuple(text.split("\n")))
        for (name, start), text in zip(starts.items(), texts, strict=True)
    }


def source_of(path: str, place: str) -> list[str]:
    """Return the lines of a function, a class, or a `Class.method`, which lose their indent."""
    name, _, method = place.partition(".")
    lines = list(definitions(path)[name].lines)
    if not method:
        return lines
    (node,) = (n for n in ast.walk(ast.parse("\n".join(lines))) if getattr(n, "name", "") == method)
    return textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno])).split("\n")


def merged_names(files: list[dict[str, Definition]]) -> list[str]:
    """Return the names of all files; each stands after the one that it follows in its own file."""
    merged: list[str] = []
    for file in files:
        place = 0
        for name in file:
            if name not in merged:
                merged.insert(place, name)
            place = merged.index(name) + 1
    return merged


def align(columns: list[tuple[str, ...]]) -> list[Row]:
    """Return rows in which the lines of every column stand in their order.

    One column after another is laid beside those before it so that the likeness of lines that
    share a row is largest in sum (Needleman & Wunsch 1970, without a penalty for gaps).
    """
    rows: list[Row] = [(i,) for i in range(len(columns[0]))]
    for number, column in enumerate(columns[1:], start=1):
        texts = [[columns[k][i] for k, i in enumerate(row) if i is not None] for row in rows]
        scores = [[max(likeness(t, line) for t in row) for line in column] for row in texts]
        empty: Row = (None,) * number
        rows = [((*rows[r], i) if r is not None else (*empty, i)) for r, i in _pairs(scores)]
    return rows


def _pairs(scores: list[list[float]]) -> list[Row]:
    """Return (row, line) in order, None where one has no partner, of the largest sum of scores."""
    height, width = len(scores), len(scores[0])
    best: defaultdict[tuple[int, int], float] = defaultdict(float)  # from a row and a line on
    for r, i in itertools.product(reversed(range(height)), reversed(range(width))):
        best[r, i] = max(best[r + 1, i], best[r, i + 1], best[r + 1, i + 1] + scores[r][i])
    pairs: list[Row] = []
    r = i = 0
    while r < height or i < width:
        row_alone = r < height and best[r, i] == best[r + 1, i]
        line_alone = not row_alone and best[r, i] == best[r, i + 1]
        pairs.append((None if line_alone else r, None if row_alone else i))
        r, i = r + (not line_alone), i + (not row_alone)
    return pairs


def likeness(one: str, other: str) -> float:
    """Return twice the words and signs in common over all: 1 for equal lines, 0 for unlike ones."""
    a, b = _words(one), _words(other)
    if not a or not b:
        return _BLANK if a == b else 0.0
    shared = 2 * len(a & b) / (len(a) + len(b))
    return shared if shared >= _LEAST_ALIKE else 0.0


@functools.cache
def _words(line: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+|[^\w\s(),]", line))
