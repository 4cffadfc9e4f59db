"""Generic mutants: small mechanical changes of any source, which no one chose by hand.

Operators, constants, comparisons and dropped statements. Type hints, docstrings and messages of
errors are left alone: no test of numbers can see them.
"""

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass

OPERATORS = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.Pow: "*",
}
COMPARISONS = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}


@dataclass(frozen=True)
class Change:
    """Replace the characters `start` to `end` of a source by `new`; `kind` is of what it is."""

    kind: str
    line: int
    start: int
    end: int
    new: str

    def applied_to(self, source: str) -> str:
        """Return the changed source."""
        return source[: self.start] + self.new + source[self.end :]


class _Changes(ast.NodeVisitor):
    """Collects every change of one source."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._lines = source.splitlines(keepends=True)
        self.found: list[Change] = []

    def _at(self, line: int, column: int) -> int:
        """Return the place in the source; `column` counts bytes of UTF-8."""
        text = self._lines[line - 1].encode()[:column].decode()
        return self._starts[line - 1] + len(text)

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._at(node.lineno, node.col_offset)
        return start, self._at(node.end_lineno, node.end_col_offset)

    def _replace(self, kind: str, node: ast.expr | ast.stmt, new: str) -> None:
        self.found.append(Change(kind, node.lineno, *self._span(node), new))

    def _text(self, node: ast.expr) -> str:
        start, end = self._span(node)
        return self._source[start:end]

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in OPERATORS:
            left, right = self._text(node.left), self._text(node.right)
            new = f"({left}) {OPERATORS[type(node.op)]} ({right})"
            self._replace("operator", node, new)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.USub | ast.Not):
            self._replace("operator", node, f"({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        other = " or " if isinstance(node.op, ast.And) else " and "
        self._replace("operator", node, other.join(f"({self._text(v)})" for v in node.values))
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        left, right = self._text(node.left), self._text(node.comparators[0])
        if len(node.ops) == 1:
            new = f"({left}) {COMPARISONS[type(node.ops[0])]} ({right})"
            self._replace("comparison", node, new)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._replace("constant", node, str(not value))
        elif isinstance(value, int):
            self._replace("constant", node, str(value + 1))
        elif isinstance(value, float):
            self._replace("constant", node, repr(2.0 * value or 1.0))

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # A docstring.
        self._drop(node)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._drop(node)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        # Without a plain name's assignment the next line has no such name.
        if not any(isinstance(target, ast.Name | ast.Tuple) for target in node.targets):
            self._drop(node)
        self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._drop(node)

    def _drop(self, node: ast.stmt) -> None:
        self._replace("dropped", node, "pass")

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_arguments(self, node: ast.arguments) -> None:
        for default in (*node.defaults, *node.kw_defaults):
            if default is not None:
                self.visit(default)

    def _visit_function(self, node: ast.FunctionDef) -> None:
        for part in (*node.decorator_list, node.args, *node.body):
            self.visit(part)

    visit_FunctionDef = visit_AsyncFunctionDef = _visit_function  # noqa: N815

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)
        if isinstance(node.ctx, ast.Load | ast.Store):
            self.visit(node.slice)


@functools.cache
def changes_of(source: str) -> tuple[Change, ...]:
    """Return every change of a source, in the order of its lines; each one still parses."""
    visitor = _Changes(source)
    visitor.visit(ast.parse(source))
    found = sorted(visitor.found, key=lambda change: (change.start, change.end, change.new))
    return tuple(_parsing(source, found))


def _parsing(source: str, changes: list[Change]) -> Iterator[Change]:
    for change in changes:
        try:
            ast.parse(change.applied_to(source))
        except SyntaxError:
            continue
        yield change
