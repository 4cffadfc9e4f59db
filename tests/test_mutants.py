"""The mutants: every change applies, a few of each framework are caught, and how it works.

All of them: `python -m tests.apparatus.mutants`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from shared.interface import IMPLEMENTATIONS
from tests import ROOT
from tests.apparatus import mutants
from tests.apparatus.generic import changes_of
from tests.apparatus.mutant_cases import GROUPS, KINDS, cases_of, sample_of
from tests.apparatus.mutant_worker import Worker
from tests.apparatus.mutants import Row, main, smallest_set
from tests.apparatus.planted.faults_of_runs import RUNS
from tests.apparatus.planted.mutate import mutated_sources
from tests.conftest import require_framework

SAMPLE = 1
SEEDS = {"pytorch": 0, "tf": 0, "jax": 3}  # of changes that one of the first tests fails on
QUIET = ["-q", "-n", "0", "-p", "no:cacheprovider"]


@pytest.mark.slow
@pytest.mark.parametrize("framework", IMPLEMENTATIONS)
def test_a_sample_is_caught(framework: str, capsys: pytest.CaptureFixture[str]) -> None:
    require_framework(framework)
    seed = str(SEEDS[framework])
    arguments = ["--group", framework, "--sample", str(SAMPLE), "--seed", seed, "--first"]
    assert main([*arguments, "--kind", "mathematics", "runs"]) == 0, capsys.readouterr().err
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"caught {SAMPLE} of {SAMPLE} changes, 100.0%")


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
            for arguments in case.stages():
                assert (ROOT / arguments[-1]).exists()


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
    return tmp_path


def test_a_changed_source_is_seen_and_then_the_right_one_again(copy: Path) -> None:
    source, file = copy / "pytorch_impl" / "sum.py", "tests/test_sum.py"
    right = source.read_text()
    with Worker(copy) as worker:
        for text, found in (
            (right, []),
            (right.replace("+", "-"), [f"{file}::test_add", f"{file}::test_more"]),
            (right, []),
            (right.replace("add(", "plus("), [file]),
            (right, []),
        ):
            shutil.rmtree(source.parent / "__pycache__", ignore_errors=True)
            source.write_text(text)
            assert worker.failures([*QUIET, file]) == found


def test_a_test_that_fails_without_a_change_is_an_error(copy: Path) -> None:
    with Worker(copy) as worker:
        worker.require_passing([*QUIET, "tests/test_sum.py::test_add"])
        with pytest.raises(RuntimeError, match="test_none: not passed without a change"):
            worker.require_passing([*QUIET, "tests/test_sum.py", "tests/test_none.py"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["tests/test_end.py"], "the process ended with exit status 3"),
        (["tests/test_sum.py", "-k", "nowhere"], "pytest ended with status 5"),
        (["tests/no_such.py"], "pytest ended with status 4"),
    ],
    ids=["the process ends", "no test is chosen", "no such file"],
)
def test_no_answer_is_no_success(copy: Path, arguments: list[str], found: str) -> None:
    with Worker(copy) as worker:
        assert worker.failures([*QUIET, *arguments]) == [found]


# --- the bookkeeping, with a worker that answers at once ------------------------------------------

TEST = "tests/test_a.py::test_b"


class Answering:
    """In a worker's place: it catches all changes but one, and remembers what it was asked."""

    asked: list[list[str]]

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder, self.plain = folder, mutated_sources("pytorch", [])

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *of: object) -> None:
        self.require_plain()

    def failures(self, arguments: list[str]) -> list[str]:
        self.asked.append(arguments)
        package = self.folder / "pytorch_impl"
        sources = {name: (package / name).read_text("utf-8") for name in self.plain}
        assert sources != self.plain, "nothing is changed"
        return [] if ".sum()" in sources["losses.py"] else [TEST, "tests/test_a.py::test_c"]

    def require_passing(self, arguments: list[str]) -> None:
        assert arguments
        self.require_plain()

    def require_plain(self) -> None:
        for name, source in self.plain.items():
            assert (self.folder / "pytorch_impl" / name).read_text("utf-8") == source, name


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> type[Answering]:
    monkeypatch.setattr(mutants, "Worker", Answering)
    monkeypatch.setattr(Answering, "asked", [], raising=False)
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
    assert lines[1].startswith("pytorch  beta1_0.9: 2 near")
    assert [line.split()[2:] for line in lines[-3:-1]] == [["2", "1", "1", "1"], ["1"] * 3 + ["0"]]
    assert lines[-1] == "caught 2 of 3 changes, 66.7%; 1 tests are enough for that"
    assert said.err == "survived: pytorch loss_sum\n"
    # Every stage on the survivor, the first alone on the others.
    assert len(answering.asked) == 5
    monkeypatch.setitem(mutants.SURVIVORS, ("pytorch", "loss_sum"), "for this test")
    assert main(FEW) == 0


@pytest.mark.slow
def test_a_stopped_run_goes_on(answering: type[Answering], tmp_path: Path) -> None:
    file = tmp_path / "mutants.json"
    assert main([*FEW, "--json", str(file)]) == 1
    rows = list(mutants.read_rows(file).values())
    assert [(row.name, row.tier) for row in rows] == [
        ("loss_sum", ""),
        ("beta1_0.9", "near"),
        ("seed_ignored", "near"),
    ]
    answering.asked.clear()
    # What survived is tried again, and what was caught with another source.
    old = dataclasses.replace(rows[2], digest="another")
    others = [dataclasses.replace(row, group="tf") for row in rows]
    file.write_text(json.dumps([dataclasses.asdict(row) for row in (*others, *rows[:2], old)]))
    assert main([*FEW, "--json", str(file)]) == 1
    assert len(answering.asked) == 4
    # Other groups' results stay in the file.
    assert list(mutants.read_rows(file).values())[:3] == others


def test_the_smallest_set_fails_on_all_that_is_caught() -> None:
    def row(name: str, *tests: str) -> Row:
        return Row("tf", "generic", name, "", "near" if tests else "", tests, 1.0)

    rows = [row("1", "a", "b"), row("2", "b", "c"), row("3", "c"), row("4"), row("5", "d")]
    assert smallest_set(rows) == ["c", "d", "b"]
