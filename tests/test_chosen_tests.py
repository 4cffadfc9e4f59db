"""Which tests are run on a mutant, and in which order."""

import pytest

from tests import ROOT
from tests.apparatus.executed_lines import Executed
from tests.apparatus.mutant_cases import Case
from tests.apparatus.mutant_tests import changed_lines, request, stages, statements

STATEMENTS = """TWO = 2


@cached
def f(
    x=3,
):
    if (
        x
    ):
        g(
            5,
        )
    # Nothing.
    return x
"""


@pytest.mark.parametrize(
    ("line", "of"),
    [
        (1, range(1, 16)),
        (2, range(1, 16)),
        (4, range(8, 16)),
        (6, range(8, 16)),
        (9, range(8, 11)),
        (12, range(11, 14)),
        (14, range(8, 16)),
        (15, range(15, 16)),
    ],
)
def test_a_line_stands_for_its_statement(line: int, of: range) -> None:
    assert statements(STATEMENTS, [line]) == set(of)


def test_changed_lines_are_those_of_the_source_before() -> None:
    before = "a\nb\nc\nd\n"
    assert changed_lines(before, "a\nB\nc\nd\n") == {2}
    assert changed_lines(before, "a\nb\nx\nc\nd\n") == {2}
    assert changed_lines(before, "x\na\nb\nc\nd\n") == {1}
    assert changed_lines(before, "a\nd\n") == {2, 3}


def test_the_tests_of_the_statement_come_first_and_none_that_edits_it() -> None:
    path = "shared/spec/streams.py"
    source = (ROOT / path).read_text("utf-8")
    changed = {path: source.replace("return", "return not", 1)}
    line = 1 << source[: source.index("return")].count("\n") + 1
    lines = {
        "tests/test_slow.py::test_a": {path: line},
        "tests/test_b.py::test_b": {path: line},
        "tests/test_planted.py::test_c": {path: line},
        "tests/test_d.py::test_d": {path: 1 << 1},
        "tests/test_e.py::test_e": {"shared/spec/compute.py": line},
        "tests/test_f.py::test_f": {"shared/reference/step.py": line},
        "": {path: line},
    }
    executed = Executed({"tests/test_slow.py::test_a": 9.0}, lines)
    near, edits = ["tests/test_b.py::test_b", "tests/test_slow.py::test_a"], "tests/test_planted.py"
    for group, own in (("tf", near), ("shared", [near[0], f"{edits}::test_c", near[1]])):
        assert stages(Case(group, "generic", "a", changed), executed) == [
            ("line", own),
            ("line", []),
            ("folder", ["tests/test_d.py::test_d", "tests/test_e.py::test_e"]),
        ]
    assert request(["tests/b.py::x", "tests/b.py::y"], executed, 1).arguments[-1] == "tests/b.py"
