"""The mutants: every fault of a run applies, a few of each framework are caught, and how it works.

All of them: `python -m tests.mutants`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from shared.interface import IMPLEMENTATIONS, MissingFrameworkError, load_implementation
from tests import mutants
from tests.mutant_tests import KINDS, kind_of, stages
from tests.mutant_worker import Worker
from tests.mutants import Mutant, chosen, digest_of, main, sample_of
from tests.planted.faults_of_runs import RUNS
from tests.planted.mutate import mutated_sources

SAMPLE, SEED = 3, 0
QUIET = ["-x", "-q", "-p", "no:cacheprovider"]


@pytest.mark.slow
@pytest.mark.parametrize("framework", IMPLEMENTATIONS)
def test_a_sample_is_caught(framework: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        load_implementation(framework)
    except MissingFrameworkError as error:
        pytest.skip(str(error))
    arguments = ["--framework", framework, "--sample", str(SAMPLE), "--seed", str(SEED)]
    assert main(arguments) == 0, capsys.readouterr().err
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"caught {SAMPLE} of {SAMPLE} planted faults, 100.0%"


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


def test_names_are_unique_and_every_fault_has_tests() -> None:
    faults = [fault for kind in KINDS.values() for fault in kind]
    assert len({fault.name for fault in faults}) == len(faults)
    assert len(RUNS) >= 26
    for framework, fault in chosen(IMPLEMENTATIONS, list(KINDS), []):
        for arguments in stages(framework, fault):
            files = [name for name in arguments if name.endswith(".py")]
            assert files
            assert all((mutants.ROOT / name).is_file() for name in files), fault.name
    assert kind_of("seed_ignored") == "runs"
    assert kind_of("loss_sum") == "mathematics"


def test_a_sample_is_of_every_framework_and_can_be_drawn_again() -> None:
    cases = chosen(IMPLEMENTATIONS, list(KINDS), [])
    drawn = sample_of(cases, 5, 1)
    assert [framework for framework, _ in drawn] == [w for w in IMPLEMENTATIONS for _ in range(5)]
    assert drawn == sample_of(cases, 5, 1) != sample_of(cases, 5, 2)
    assert len({fault.name for _, fault in drawn}) > 5
    assert sample_of(cases, 1000, 1) == cases


def test_an_unknown_fault_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "seed_ignored", "no_such"]) == 2
    error = capsys.readouterr().err
    assert "unknown faults no_such; expected some of " in error
    assert error.count("\n") == 1


# --- a copy with a package of one line and no framework ------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with a package and its tests, of which the second fails whatever the source is."""
    for name in ("tests", "pytorch_impl"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    shutil.copy(mutants.ROOT / "tests" / "mutant_worker.py", tmp_path / "tests")
    (tmp_path / "shared" / "files").mkdir(parents=True)
    shutil.copy(mutants.ROOT / "shared/files/child_process.py", tmp_path / "shared" / "files")
    (tmp_path / "pytorch_impl" / "sum.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "tests" / "test_sum.py").write_text(
        "from pytorch_impl.sum import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n"
    )
    (tmp_path / "tests" / "test_none.py").write_text("def test_none():\n    assert False\n")
    (tmp_path / "tests" / "test_end.py").write_text(
        "import os\n\n\ndef test_end():\n    os._exit(3)\n"
    )
    return tmp_path


def test_a_changed_source_is_seen_and_then_the_right_one_again(copy: Path) -> None:
    source = copy / "pytorch_impl" / "sum.py"
    right = source.read_text()
    with Worker(copy) as worker:
        for text, found in (
            (right, ""),
            (right.replace("+", "-"), "tests/test_sum.py::test_add"),
            (right, ""),
            (right.replace("add(", "plus("), "tests/test_sum.py"),
            (right, ""),
        ):
            shutil.rmtree(source.parent / "__pycache__", ignore_errors=True)
            source.write_text(text)
            assert worker.first_failure([*QUIET, "tests/test_sum.py"]) == found


def test_a_test_that_fails_without_a_fault_is_an_error(copy: Path) -> None:
    with Worker(copy) as worker:
        worker.require_passing(["tests/test_sum.py::test_add"])
        with pytest.raises(RuntimeError, match="test_none fails without a fault"):
            worker.require_passing(["tests/test_sum.py::test_add", "tests/test_none.py::test_none"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tests/test_end.py"], "the process ended with exit status 3: pytest tests/test_end.py"),
        (["tests/test_sum.py", "-k", "nothing"], "failed no test and has status 5; expected 0"),
        (["tests/no_such.py"], "failed no test and has status 4; expected 0"),
    ],
    ids=["the process ends", "no test is chosen", "no such file"],
)
def test_what_is_no_answer_is_an_error(copy: Path, arguments: list[str], message: str) -> None:
    with Worker(copy) as worker, pytest.raises(RuntimeError, match=message):
        worker.first_failure(arguments)


# --- the bookkeeping, with a worker that answers at once ------------------------------------------


class Answering:
    """In a worker's place: it catches all faults but one, and remembers what it was asked."""

    asked: list[list[str]]
    unnoticed = "loss_sum"

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder, self.plain = folder, mutated_sources("pytorch", [])

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *of: object) -> None:
        self.require_plain()

    def first_failure(self, arguments: list[str]) -> str:
        self.asked.append(arguments)
        package = self.folder / "pytorch_impl"
        sources = {name: (package / name).read_text("utf-8") for name in self.plain}
        assert sources != self.plain, "nothing is planted"
        return "" if ".sum()" in sources["losses.py"] else "tests/test_a.py::test_b"

    def require_passing(self, tests: list[str]) -> None:
        assert set(tests) <= {"tests/test_a.py::test_b"}
        self.require_plain()

    def require_plain(self) -> None:
        for name, source in self.plain.items():
            assert (self.folder / "pytorch_impl" / name).read_text("utf-8") == source, name


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> type[Answering]:
    monkeypatch.setattr(mutants, "Worker", Answering)
    monkeypatch.setattr(Answering, "asked", [], raising=False)
    return Answering


FEW = ["--framework", "pytorch", "--only", "loss_sum", "beta1_0.9", "seed_ignored"]


def test_a_survivor_is_reported_unless_it_is_explained(
    answering: type[Answering],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(FEW) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("pytorch  loss_sum: SURVIVED")
    assert lines[1].startswith("pytorch  beta1_0.9: tests/test_a.py::test_b")
    assert lines[-3:] == [
        "pytorch  mathematics  caught 1 of 2",
        "pytorch  runs         caught 1 of 1",
        "caught 2 of 3 planted faults, 66.7%",
    ]
    # Both stages on the survivor, the first alone on the others.
    assert len(answering.asked) == 4
    monkeypatch.setitem(mutants.SURVIVORS, ("pytorch", "loss_sum"), "for this test")
    assert main(FEW) == 0


def test_a_stopped_run_goes_on(answering: type[Answering], tmp_path: Path) -> None:
    file = tmp_path / "mutants.json"
    assert main([*FEW, "--json", str(file)]) == 1
    entries = [Mutant(**entry) for entry in json.loads(file.read_text())]
    assert [(m.fault, bool(m.caught_by)) for m in entries] == [
        ("loss_sum", False),
        ("beta1_0.9", True),
        ("seed_ignored", True),
    ]
    answering.asked.clear()
    # What survived is tried again, and what was caught with another source.
    old = dataclasses.replace(entries[2], digest=digest_of({"train.py": "another"}))
    file.write_text(json.dumps([dataclasses.asdict(m) for m in (*entries[:2], old)]))
    assert main([*FEW, "--json", str(file)]) == 1
    assert len(answering.asked) == 3
    assert [Mutant(**entry).fault for entry in json.loads(file.read_text())] == [
        "loss_sum",
        "beta1_0.9",
        "seed_ignored",
    ]
    # Other frameworks' results stay in the file.
    answering.asked.clear()
    others = [dataclasses.replace(m, framework="tf") for m in entries]
    file.write_text(json.dumps([dataclasses.asdict(m) for m in (*others, *entries)]))
    assert main([*FEW, "--json", str(file)]) == 1
    assert len(answering.asked) == 2
    assert [Mutant(**entry) for entry in json.loads(file.read_text())][:3] == others
