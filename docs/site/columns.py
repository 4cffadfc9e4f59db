"""Sphinx directives `columns` and `traps`: the implementations side by side, marked with traps.

Lines of the three correspond by function first, then line by line.
"""

import ast
import functools
import html
import importlib
import inspect
import itertools
import operator
import re
import textwrap
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]
COLUMNS = {"pytorch": "PyTorch", "tf": "TensorFlow", "jax": "JAX"}
HEAD = "Imports and constants"
"""Name of what stands above the first function of a file."""
_LEAST_ALIKE = 0.4
_BLANK = 0.05  # of two blank lines: no evidence, but it decides where nothing else does
TABLES = tomllib.loads(Path(__file__).with_name("traps.toml").read_text("utf-8"))
MARK = re.compile(r"(?P<module>\w+)\.(?P<name>\w+)(?:\[(?P<column>\w+)\])?: (?P<line>.+)")
_TRAP = re.compile(
    r'^\| <a id="(?P<name>[\w-]+)"></a>(?P<title>.*?) \|.*'
    r" \| (?P<recipe>.*) \| (?P<error>[^|]+) \|$",
    re.MULTILINE,
)
_TEST = "tests/docs/test_porting.py::test_the_naive_port_is_caught_and_ours_is_right[{}]"


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


def source_of(file: str, place: str) -> list[str]:
    """Return the lines of a function, class or `Class.method` of the reference, without indent."""
    found = operator.attrgetter(place)(importlib.import_module(f"shared.reference.{file}"))
    return textwrap.dedent(inspect.getsource(found)).splitlines()


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


@functools.cache
def traps() -> dict[str, re.Match]:
    """Return the rows of docs/porting.md by name: name, title, recipe, error."""
    guide = (ROOT / "docs" / "porting.md").read_text("utf-8")
    return {row["name"]: row for row in _TRAP.finditer(guide)}


def marks(trap: str) -> list[re.Match]:
    """Return where a trap meets the code: module, name, column or None, regular expression."""
    return [m for m in map(MARK.fullmatch, TABLES["marks"].get(trap, ())) if m]


def files_of(module: str) -> dict[str, dict[str, Definition]]:
    """Return the definitions of a module in every implementation."""
    return {column: definitions(f"{column}_impl/{module}.py") for column in COLUMNS}


def aligned(module: str, name: str) -> tuple[dict[str, Definition], list[Row]]:
    """Return a function in every column that has it, and the rows that these share."""
    found = {c: file[name] for c, file in files_of(module).items() if name in file}
    return found, align([definition.lines for definition in found.values()])


def reference_of(module: str, name: str) -> list[str]:
    """Return the lines that the reference has in a function's place."""
    lines: list[str] = []
    for file, place in TABLES["reference"].get(f"{module}.{name}", ()):
        own = source_of(file, place)
        lines += [f"# shared/reference/{file}.py", *own, ""]
    return lines[:-1]


def table(module: str, name: str) -> str:
    """Return the HTML of a function's columns: always three, and the reference's where it has one.

    The style sheet finds a column by its number.
    """
    found, rows = aligned(module, name)
    shown = {column: _cells(module, name, column, found[column]) for column in found}
    lines = []
    for row in rows:
        at = dict(zip(found, row, strict=True))
        texts = {found[c].lines[i].strip() if i is not None else None for c, i in at.items()}
        same = " class=same" if len(found) == len(COLUMNS) and len(texts) == 1 else ""
        cells = (shown[c][i] if (i := at.get(c)) is not None else "<td></td>" for c in COLUMNS)
        lines.append(f"<tr{same}>{''.join(cells)}</tr>")
    titles = [f"{title} <small>{c}_impl/{module}.py</small>" for c, title in COLUMNS.items()]
    if reference := reference_of(module, name):
        code = "\n".join(_highlighted(reference))
        cell = f"<td rowspan={len(lines)}><code>{code}</code></td>"
        lines[0] = lines[0].replace("</tr>", f"{cell}</tr>")
        titles.append("Reference <small>shared/reference</small>")
    head = "".join(f"<th>{title}</th>" for title in titles)
    body = "".join(lines)
    return f'<table class="columns highlight"><thead><tr>{head}</tr></thead>{body}</table>'


def _cells(module: str, name: str, column: str, definition: Definition) -> list[str]:
    """Return a cell for each line, with a label for each trap that it avoids."""
    known = [(trap, m) for trap in traps() for m in marks(trap) if m["column"] in (None, column)]
    own = [(trap, m["line"]) for trap, m in known if m.group("module", "name") == (module, name)]
    cells = []
    shown = zip(definition.lines, _highlighted(list(definition.lines)), strict=True)
    for number, (text, code) in enumerate(shown, start=definition.start):
        labels = "".join(
            f'<a class="trap" href="../porting.html#{trap}" title="{_TEST.format(trap)}">'
            f"{html.escape(traps()[trap]['title'])}: {traps()[trap]['error']}</a>"
            for trap, line in own
            if re.search(line, text)
        )
        indent = (len(text) - len(text.lstrip())) // 4
        cells.append(f"<td data-line={number}><code class=i{indent}>{code}</code>{labels}</td>")
    return cells


def _highlighted(lines: list[str]) -> list[str]:
    code = highlight("\n".join(lines), PythonLexer(stripnl=False), HtmlFormatter(nowrap=True))
    return code.rstrip("\n").split("\n")


class Columns(SphinxDirective):
    """Every function of a module, in three columns."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a section for each function."""
        (module,) = self.arguments
        made: list[nodes.Node] = []
        for name in merged_names(list(files_of(module).values())):
            why = self.parse_text_to_nodes(TABLES["alone"].get(f"{module}.{name}", ""))
            made.append(_section(name, name, *why))
            made[-1] += nodes.raw("", table(module, name), format="html")
        return made


class Traps(SphinxDirective):
    """Every trap of docs/porting.md: its error, recipe, test, and the lines that avoid it."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each trap."""
        return [
            _section(name, f"{t['title']} ({name})", *self.parse_text_to_nodes(_described(t)))
            for name, t in traps().items()
        ]


def _described(trap: re.Match) -> str:
    name, recipe = trap["name"], trap["recipe"].replace("](#", "](porting.md#")
    places = sorted({m.group("module", "name") for m in marks(name)})
    links = ", ".join(f"[{m}.{n}](columns/{m}.md#{n})" for m, n in places)
    return (
        f"Error if missed: **{trap['error']}**. Recipe: {recipe}\n\nAll frameworks: "
        f"[{name}](porting.md#{name}). In the columns: {links or 'no line of them'}. "
        f"Test: `{_TEST.format(name)}`."
    )


def _section(name: str, title: str, *content: nodes.Node) -> nodes.section:
    return nodes.section("", nodes.title(text=title), *content, ids=[name.replace(" ", "-")])
