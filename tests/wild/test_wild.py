"""Public reports' mistakes, made again: each is named, or located where nothing names it."""

import importlib
from pathlib import Path

import pytest

from tests.conftest import require_framework
from tests.tiers import one_in
from tests.wild.case import AdapterCase, RecordingCase

pytest.importorskip("torch", reason="the ports are written in PyTorch")

from tests.wild import adapters, loops, recordings, tangles


def check(case: AdapterCase | RecordingCase, folder: Path) -> None:
    outcome, said = case.outcome(folder)
    assert outcome == ("named" if case.is_known else "located"), f"{case.report}: {said}"


@pytest.mark.parametrize(
    "case",
    one_in(7, [*adapters.SEEN, *adapters.HELD_BACK])
    + one_in(9, loops.LOOPS)
    + one_in(5, tangles.TANGLES),
    ids=lambda case: case.report,
)
def test_a_port(case: AdapterCase, tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.parametrize(
    "case", [*recordings.SEEN, *recordings.HELD_BACK], ids=lambda case: case.report
)
def test_a_pair_of_recordings(case: RecordingCase, tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.parametrize(("framework", "library"), [("jax", "flax"), ("tf", "keras")])
def test_a_loop_in_its_own_framework(framework: str, library: str, tmp_path: Path) -> None:
    """One of each: explaining them takes half a minute (all: `python -m tests.wild`)."""
    require_framework(framework)
    own = importlib.import_module(f"tests.wild.{library}_loops")
    check(own.LOOPS[-1], tmp_path)
