"""The mutants: every change applies, a few of each framework are caught, and how it works.

All of them: `python -m tests.apparatus.mutants`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
from pathlib import Path

import pytest

from shared.interface import IMPLEMENTATIONS
from tests import ROOT
from tests.apparatus import mutants
from tests.apparatus.executed_lines import Executed, read, record
from tests.apparatus.generic import changes_of
from tests.apparatus.mutant_cases import GROUPS, KINDS, cases_of, sample_of
from tests.apparatus.mutant_worker import MODULES, Request, Worker
from tests.apparatus.mutants import Row, main, smallest_set
from tests.apparatus.planted.faults_of_runs import RUNS
from tests.apparatus.planted.mutate import mutated_sources
from tests.conftest import require_framework

QUIET = ["-q", "-n", "0", "-p", "no:cacheprovider"]


@pytest.mark.slow
@pytest.mark.parametrize("framework", IMPLEMENTATIONS)
def test_a_fault_is_caught_by_the_tests_of_its_lines(
    framework: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_framework(framework)
    # PyTorch's process imports all that one of the command does.
    modules = {"tf": ("tests.conftest", "keras"), "jax": ("tests.conftest", "flax.nnx")}
    worker = functools.partial(Worker, modules=modules.get(framework, MODULES))
    monkeypatch.setattr(mutants, "Worker", worker)
    test = f"tests/implementations/test_losses.py::test_every_case_of_the_fixture[{framework}-bce"
    chosen = ["--group", framework, "--only", "loss_sum"]
    assert main([*chosen, "--tests", f"{test}-float32]", f"{test}-float64]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    # Six failures end it, or two seconds after the first one.
    assert re.match(rf"{framework:<8} loss_sum: [1-6] line of ", lines[0])
    assert "caught 1 of 1 changes, 100.0%; 1 tests are enough for that" in lines


@pytest.mark.parametrize("framework", IMPLEMENTATIONS)
def test_every_edit_of_every_fault_of_a_run_applies(framework: str) -> None:
    plain = mutated_sources(framework, [])
    for fault in RUNS:
        assert (framework in fault.edits) != (framework in fault.absent), fault.name
        if framework in fault.edits:
            changed = mutated_sources(framework, [fault])
            assert changed != plain, fault.name
            for file, source in changed.items():
                compile(source, file, "exec")


@pytest.mark.slow
def test_every_case_changes_a_file_and_has_tests() -> None:
    assert len(RUNS) >= 26
    for group in GROUPS:
        cases = [case for kind in KINDS for case in cases_of(group, kind, 20, 0)]
        assert len({case.name for case in cases}) == len(cases)
        assert len({case.digest for case in cases}) == len(cases)
        for case in cases:
            for path, source in case.sources.items():
                assert source != (ROOT / path).read_text("utf-8")


@pytest.mark.slow
def test_a_sample_is_of_every_group_and_can_be_drawn_again() -> None:
    cases = [case for group in GROUPS for case in cases_of(group, "generic", 20, 0)]
    drawn = sample_of(cases, 5, 1)
    assert [case.group for case in drawn] == [group for group in GROUPS for _ in range(5)]
    assert drawn == sample_of(cases, 5, 1) != sample_of(cases, 5, 2)
    assert sample_of(cases, 1000, 1) == cases
    assert cases_of("jax", "generic", 20, 0) != cases_of("jax", "generic", 20, 1)


SOURCE = '''"""Five."""


def f(x: int = 3, *, half: bool = True) -> "list[5]":
    """Two."""
    y = -x + 2 if x <= 1 and half else x
    y += 1
    print(f"é {y}", 0.5)
    if not y:
        raise ValueError("a 7")
    return [y][0]
'''


def test_generic_changes_are_of_code_alone_and_parse() -> None:
    found = {(c.line, SOURCE[c.start : c.end], c.new) for c in changes_of(SOURCE)}
    assert found == {
        (4, "3", "4"),
        (4, "True", "False"),
        (6, "-x", "(x)"),
        (6, "-x + 2", "(-x) - (2)"),
        (6, "2", "3"),
        (6, "x <= 1", "(x) < (1)"),
        (6, "1", "2"),
        (6, "x <= 1 and half", "(x <= 1) or (half)"),
        (7, "y += 1", "pass"),
        (7, "1", "2"),
        (8, 'print(f"é {y}", 0.5)', "pass"),
        (8, "0.5", "1.0"),
        (9, "not y", "(y)"),
        (10, 'raise ValueError("a 7")', "pass"),
        (11, "0", "1"),
    }
    for change in changes_of(SOURCE):
        compile(change.applied_to(SOURCE), "f", "exec")


@pytest.mark.slow
def test_an_unknown_change_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "seed_ignored", "no_such", "--generic", "0"]) == 2
    error = capsys.readouterr().err
    assert "unknown changes no_such; expected some of " in error
    assert error.count("\n") == 1


# --- a copy with a package of one line and no framework ------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with a package and its tests, of which the second fails whatever the source is."""
    for name in ("tests/apparatus", "pytorch_impl", "shared/files"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("tests", "tests/apparatus", "pytorch_impl"):
        (tmp_path / name / "__init__.py").touch()
    for name in (
        "tests/apparatus/executed_lines.py",
        "tests/apparatus/mutant_worker.py",
        "tests/apparatus/kept_process.py",
        "shared/files/child_process.py",
        "shared/files/errors.py",
    ):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "pytorch_impl" / "sum.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "tests" / "test_sum.py").write_text(
        "from pytorch_impl.sum import add\n\n\n"
        "def test_add():\n    assert add(2, 3) == 5\n\n\n"
        "def test_nothing():\n    assert add(0, 0) == 0\n\n\n"
        "def test_more():\n    assert add(1, 3) == 4\n"
    )
    (tmp_path / "tests" / "test_none.py").write_text("def test_none():\n    assert False\n")
    (tmp_path / "tests" / "test_end.py").write_text(
        "import os\n\n\ndef test_end():\n    os._exit(3)\n"
    )
    (tmp_path / "tests" / "test_hang.py").write_text(
        "import time\n\n\ndef test_hang():\n    time.sleep(600)\n"
    )
    return tmp_path


def worker_in(copy: Path) -> Worker:
    return Worker(copy, modules=())


def test_a_changed_source_is_seen_and_then_the_right_one_again(copy: Path) -> None:
    source, file = copy / "pytorch_impl" / "sum.py", "tests/test_sum.py"
    right = source.read_text()
    with worker_in(copy) as worker:
        for text, found in (
            (right, []),
            (right.replace("+", "-"), [f"{file}::test_add", f"{file}::test_more"]),
            (right, []),
            (right.replace("add(", "plus("), [file]),
            (right, []),
        ):
            shutil.rmtree(source.parent / "__pycache__", ignore_errors=True)
            source.write_text(text)
            assert worker.failures(Request([*QUIET, file])) == found


def test_tests_run_in_the_given_order_until_enough_have_failed(copy: Path) -> None:
    (copy / "pytorch_impl" / "sum.py").write_text("def add(a, b):\n    return a - b\n")
    file = "tests/test_sum.py"
    order = [f"{file}::{name}" for name in ("test_nothing", "test_more", "test_gone", "test_add")]
    with worker_in(copy) as worker:
        for most, found in ((0, [order[1], order[3]]), (1, [order[1]])):
            assert worker.failures(Request([*QUIET, file], order, most)) == found


def test_a_test_that_fails_without_a_change_is_an_error(copy: Path) -> None:
    executed = Executed({}, {})
    with worker_in(copy) as worker:
        mutants.require_passing(worker, ["tests/test_sum.py::test_add"], executed)
        tests = ["tests/test_sum.py::test_add", "tests/test_none.py::test_none"]
        with pytest.raises(RuntimeError, match="test_none: not passed without a change"):
            mutants.require_passing(worker, tests, executed)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["tests/test_end.py"], "tests/test_end.py::test_end"),
        (["tests/test_hang.py"], "tests/test_hang.py::test_hang"),
        (["tests/test_sum.py", "-k", "nowhere"], "pytest ended with status 5"),
        (["tests/no_such.py"], "pytest ended with status 4"),
    ],
    ids=["the process ends", "the process hangs", "no test is chosen", "no such file"],
)
def test_no_answer_is_no_success(copy: Path, arguments: list[str], found: str) -> None:
    with worker_in(copy) as worker:
        assert worker.failures(Request([*QUIET, *arguments], seconds=2.0)) == [found]
        assert worker.failures(Request([*QUIET, "tests/test_sum.py"])) == []


def test_the_lines_of_each_test_and_of_the_processes_that_it_starts(copy: Path) -> None:
    (copy / "pytorch_impl" / "sum.py").write_text(
        "def add(a, b):\n    if a:\n        return a + b\n    return b\n"
    )
    (copy / "tests" / "test_deep.py").write_text(
        "import pytest\n\nfrom pytorch_impl.sum import add\n\n\n"
        "def deep(n):\n    add(0, 1)\n    return deep(n + 1)\n\n\n"
        "def test_deep():\n    with pytest.raises(RecursionError):\n        deep(0)\n\n\n"
        "def test_then():\n    add(0, 1)\n"
    )
    (copy / "tests" / "test_child.py").write_text(
        "import subprocess\nimport sys\n\n\n"
        "def test_child():\n"
        '    code = "from pytorch_impl.sum import add; add(0, 1)"\n'
        '    subprocess.run([sys.executable, "-c", code], check=True)\n'
    )
    names = ("deep", "sum", "child", "none")
    record(copy, copy / "lines", [f"tests/test_{name}.py" for name in names])
    executed, path = read(copy / "lines"), "pytorch_impl/sum.py"
    in_sum = [f"tests/test_sum.py::test_{name}" for name in ("add", "nothing", "more")]
    child = "tests/test_child.py::test_child"
    # Tracing that an error has ended begins again with the next test.
    deep = [f"tests/test_deep.py::test_{name}" for name in ("deep", "then")]
    # Quickest first, and the one that failed without a change not at all.
    seconds = [executed.seconds[test] for test in executed.tests_of(path, 1 << 2)]
    assert seconds == sorted(seconds)
    assert sorted(executed.tests_of(path, 1 << 2)) == sorted([child, *deep, *in_sum])
    assert sorted(executed.tests_of(path, 1 << 3)) == sorted([in_sum[0], in_sum[2]])
    assert sorted(executed.tests_of(path, 1 << 4)) == sorted([child, *deep, in_sum[1]])


# --- the bookkeeping, with a worker that answers at once ------------------------------------------

TEST = "tests/test_a.py::test_b"


class Answering:
    """In a worker's place: it catches all changes but one, and remembers what it was asked."""

    asked: list[Request]

    def __init__(self, folder: Path) -> None:
        self.folder, self.plain = folder, mutated_sources("pytorch", [])

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *of: object) -> None:
        assert self.sources() == self.plain

    def sources(self) -> dict[str, str]:
        package = self.folder / "pytorch_impl"
        return {name: (package / name).read_text("utf-8") for name in self.plain}

    def failures(self, request: Request) -> list[str]:
        if self.sources() == self.plain:  # the end, where no test may fail
            assert len(request.order) == 1
            return []
        self.asked.append(request)
        return [] if ".sum()" in self.sources()["losses.py"] else [TEST, "tests/test_a.py::test_c"]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> type[Answering]:
    monkeypatch.setattr(mutants, "Worker", Answering)
    monkeypatch.setattr(Answering, "asked", [], raising=False)
    every_line = {f"pytorch_impl/{name}": -1 for name in mutated_sources("pytorch", [])}
    executed = Executed({}, {"tests/test_a.py::test_b": every_line})
    monkeypatch.setattr(mutants, "record", lambda *of: None)
    monkeypatch.setattr(mutants, "read", lambda folder: executed)
    return Answering


FEW = ["--group", "pytorch", "--only", "loss_sum", "beta1_0.9", "seed_ignored"]


@pytest.mark.slow
def test_a_survivor_is_reported_unless_it_is_explained(
    answering: type[Answering],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(FEW) == 1
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("pytorch  loss_sum: SURVIVED")
    assert lines[1].startswith("pytorch  beta1_0.9: 2 line")
    assert [line.split()[2:] for line in lines[-4:-2]] == [["2", "1", "1", "1"], ["1"] * 3 + ["0"]]
    assert lines[-2:] == [
        "caught 2 of 3 changes, 66.7%; 1 tests are enough for that",
        "0 of 1 survivors are explained",
    ]
    assert said.err == "survived: pytorch loss_sum\n"
    assert len(answering.asked) == 3
    assert main([*FEW, "--rest"]) == 1
    assert len(answering.asked) == 3 + 4
    assert "--rest" in answering.asked[4].arguments
    monkeypatch.setitem(mutants.SURVIVORS, None, "for this test")  # the place of planted faults
    assert main(FEW) == 0


@pytest.mark.slow
def test_a_stopped_run_goes_on(answering: type[Answering], tmp_path: Path) -> None:
    file = tmp_path / "mutants.json"
    assert main([*FEW, "--json", str(file)]) == 1
    rows = list(mutants.read_rows(file).values())
    assert [(row.name, row.stage) for row in rows] == [
        ("loss_sum", ""),
        ("beta1_0.9", "line"),
        ("seed_ignored", "line"),
    ]
    answering.asked.clear()
    # What survived is tried again, and what was caught with another source.
    old = dataclasses.replace(rows[2], digest="another")
    others = [dataclasses.replace(row, group="tf") for row in rows]
    file.write_text(json.dumps([dataclasses.asdict(row) for row in (*others, *rows[:2], old)]))
    assert main([*FEW, "--json", str(file)]) == 1
    assert len(answering.asked) == 2
    # Other groups' results stay in the file.
    assert list(mutants.read_rows(file).values())[:3] == others


def test_the_smallest_set_fails_on_all_that_is_caught() -> None:
    def row(name: str, *tests: str) -> Row:
        return Row("tf", "generic", name, "", "line" if tests else "", tests, 9, 1.0)

    rows = [row("1", "a", "b"), row("2", "b", "c"), row("3", "c"), row("4"), row("5", "d")]
    assert smallest_set(rows) == ["c", "d", "b"]
