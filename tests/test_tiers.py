"""Which tests a tier takes, and which share a process."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tiers import choose, frameworks_of, is_slow, one_in, process_of

ROOM = Path("/project/tests/room")
QUICK, PLAIN_SLOW = "test_a.py::test_quick", "test_a.py::test_slow"
TENSORFLOW, PYTORCH = "test_b.py::test_step[tf-float64]", "test_b.py::test_step[pytorch-float64]"
SLOW_HERE = pytest.mark.slow("tf", "jax").mark


def item(name: str, *marks: pytest.Mark) -> Any:
    return SimpleNamespace(
        nodeid=f"tests/room/{name}",
        path=ROOM / name.partition("::")[0],
        iter_markers=lambda kind: [mark for mark in marks if mark.name == kind],
    )


def chosen(*arguments: str, all: bool = False, rest: bool = False) -> list[str]:
    """Return what is kept of four tests; what is not has to be reported as deselected."""
    items = [
        item(QUICK),
        item(PLAIN_SLOW, pytest.mark.slow.mark),
        item(TENSORFLOW, SLOW_HERE),
        item(PYTORCH, SLOW_HERE),
    ]
    before, left_out = list(items), []
    config: Any = SimpleNamespace(
        args=list(arguments),
        getoption={"--all": all, "--rest": rest}.__getitem__,
        invocation_params=SimpleNamespace(dir=Path("/project")),
        hook=SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items)),
    )
    choose(config, items)
    assert [one for one in before if one not in items] == left_out
    return [one.nodeid.removeprefix("tests/room/") for one in items]


def test_the_default_tier_and_the_rest_are_all_and_share_nothing() -> None:
    assert chosen("tests") == [QUICK, PYTORCH]
    assert chosen("tests", rest=True) == [PLAIN_SLOW, TENSORFLOW]
    assert chosen("tests", all=True) == [QUICK, PLAIN_SLOW, TENSORFLOW, PYTORCH]


def test_a_test_that_is_named_runs_and_brings_no_other_along() -> None:
    assert chosen("tests/room/test_a.py::test_slow") == [QUICK, PLAIN_SLOW, PYTORCH]
    assert chosen("tests/room/test_b.py::test_step", "tests/room/test_a.py") == [
        QUICK,
        TENSORFLOW,
        PYTORCH,
    ]
    assert chosen("tests/other/test_a.py::test_slow") == [QUICK, PYTORCH]


def test_a_mark_with_frameworks_is_of_those_alone() -> None:
    assert is_slow(item(TENSORFLOW, SLOW_HERE))
    assert not is_slow(item(PYTORCH, SLOW_HERE))
    assert not is_slow(item(QUICK, SLOW_HERE))
    assert is_slow(item(PYTORCH, SLOW_HERE, pytest.mark.slow.mark))


def test_a_process_has_the_tests_of_one_framework_or_of_a_file() -> None:
    assert process_of("tests/a.py::test_b[tf-float64]") == "tf"
    assert process_of("tests/c.py::test_d[bce-jax]") == "jax"
    assert process_of("tests/a.py::test_b[pytorch then tf]") == "tests/a.py"
    assert process_of("tests/a.py::test_jax_alone") == "tests/a.py"
    assert frameworks_of("tests/a.py::test_b[tfx-jaxlib]") == set()


def test_one_in_so_many_is_in_the_default_tier() -> None:
    cases = one_in(3, [*"abcde"])
    assert [case.values for case in cases] == [(letter,) for letter in "abcde"]
    assert [not case.marks for case in cases] == [True, False, False, True, False]
    assert one_in(2, [("a", 1), ("b", 2)])[1].values == ("b", 2)
