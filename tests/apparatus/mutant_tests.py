"""Which tests are run on a change: those that execute what it changes, the quickest first."""

import ast
import difflib
from collections.abc import Iterable, Sequence

from shared.interface import IMPLEMENTATIONS
from tests import ROOT
from tests.apparatus.executed_lines import Executed
from tests.apparatus.mutant_cases import Case
from tests.apparatus.mutant_worker import Request

OFF = ("-q", "-n", "0", "-p", "no:cacheprovider", "--tb=no")
BLIND = (
    "tests/test_planted.py",
    "tests/test_mutants.py",
    "tests/explain/test_explain.py::test_a_fault_in_a_frameworks_source_is_named",
)
"""They edit a framework's source: an edit that does not apply says nothing of the numbers."""
FEW = 24
"""So many tests at first: a file's collection takes longer than most tests."""
SLOWNESS, START_SECONDS = 10.0, 120.0  # of a change, beyond what its tests took without it


def stages(case: Case, executed: Executed) -> list[tuple[str, list[str]]]:
    """Return the names of stages and their tests of the default tier, none in two stages.

    "line": they execute a changed statement; "folder": something else of a changed file's folder,
    as where a constant of one module shows in another.
    """
    of_lines, of_folders = [], []
    for path, source in case.sources.items():
        before = (ROOT / path).read_text("utf-8")
        lines = statements(before, changed_lines(before, source))
        of_lines += executed.tests_of(path, _bits(lines))
        of_folders += executed.tests_in(path.rpartition("/")[0])
    order = sorted(set(of_folders), key=lambda test: (executed.seconds.get(test, 0.0), test))
    seen = [test for test in order if not test.startswith(blind_to(case))]
    near = [test for test in seen if test in set(of_lines)]
    others = [test for test in seen if test not in set(of_lines)]
    return [("line", near[:FEW]), ("line", near[FEW:]), ("folder", others)]


def blind_to(case: Case) -> tuple[str, ...]:
    """Return the beginnings of the names of tests whose failure would say nothing of a change."""
    return BLIND if case.group in IMPLEMENTATIONS else ()


def request(tests: Sequence[str], executed: Executed, at_most: int) -> Request:
    """Return the request for tests in their order, with a limit of time from what they took."""
    files = sorted({test.partition("::")[0] for test in tests})
    seconds = START_SECONDS + SLOWNESS * sum(executed.seconds.get(test, 1.0) for test in tests)
    return Request([*OFF, *files], list(tests), at_most, seconds)


def rest_of(case: Case) -> Request:
    """Return the request for what the default tier leaves out, to its first failure."""
    own = ["-k", f"{case.group} or every_framework"] if case.group in IMPLEMENTATIONS else []
    ignored = [f"--deselect={blind}" for blind in blind_to(case)]
    return Request([*OFF, *ignored, *own, "-x", "--rest", "tests"])


def changed_lines(before: str, after: str) -> set[int]:
    """Return the lines of `before` that are others in `after`, or the one before what is added."""
    old, new = before.splitlines(), after.splitlines()
    changed: set[int] = set()
    for tag, start, end, _, _ in difflib.SequenceMatcher(None, old, new, False).get_opcodes():
        if tag == "insert":
            changed.add(max(1, start))
        elif tag != "equal":
            changed |= set(range(start + 1, end + 1))
    return changed


def statements(source: str, lines: Iterable[int]) -> set[int]:
    """Return all lines of the statements that hold the lines.

    Of what runs at the import, that is all lines of the function whose head it is, or of the file.
    """
    tree, found = ast.parse(source), set()
    for line in lines:
        found |= _statement(tree, line, len(source.splitlines()))
    return found


def _statement(tree: ast.Module, line: int, count: int) -> set[int]:
    node: ast.AST = tree
    own = set(range(1, count + 1))
    is_function = False
    while inner := [child for child in ast.iter_child_nodes(node) if _holds(child, line)]:
        node = inner[0]
        if not isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
            continue
        body = getattr(node, "body", None)
        if isinstance(node, ast.FunctionDef):
            is_function, own = True, set(range(node.body[0].lineno, _last(node) + 1))
        elif is_function:
            first, last = _first(node), _last(node)
            in_head = isinstance(body, list) and line < body[0].lineno
            own = set(range(first, body[0].lineno if in_head else last + 1))
    return own


def _holds(node: ast.AST, line: int) -> bool:
    return hasattr(node, "lineno") and _first(node) <= line <= _last(node)


def _first(node: ast.AST) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)])  # type: ignore[attr-defined]


def _last(node: ast.AST) -> int:
    return node.end_lineno  # type: ignore[attr-defined]


def _bits(lines: Iterable[int]) -> int:
    return sum(1 << line for line in lines)
