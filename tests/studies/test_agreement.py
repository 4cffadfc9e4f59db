"""`python -m shared.agreement` and what it prints."""

import os
import subprocess
import sys

import pytest

from shared.interface import Implementation
from shared.reference.adapter import ReferenceImplementation
from shared.spec import Conventions
from shared.studies.agreement import main, measure
from tests import ROOT
from tests.conftest import require_framework
from tests.tiers import SLOW_IN_TF_AND_JAX


@SLOW_IN_TF_AND_JAX
def test_every_implementation_agrees(implementation: Implementation) -> None:
    errors, _ = measure(implementation, "float64")
    assert max(errors.values()) < 1e-12


@pytest.mark.slow
def test_jax_agrees_when_its_compiler_optimises() -> None:
    """Every other test of JAX tells the compiler to be quick: see tests/conftest.py."""
    require_framework("jax")
    finished = subprocess.run(
        [sys.executable, "-m", "shared.agreement", "jax"],
        env={name: value for name, value in os.environ.items() if name != "XLA_FLAGS"},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    _, *rows = (line.split() for line in finished.stdout.splitlines())
    bounds = {"float64": 1e-12, "float32": 1e-5}
    assert [row[1] for row in rows] == list(bounds)
    for _, dtype, *errors, _ in rows:
        assert max(map(float, errors)) < bounds[dtype], dtype


def test_a_wrong_port_shows() -> None:
    wrong, _ = measure(ReferenceImplementation(Conventions(batch_norm_epsilon=1e-3)), "float64")
    assert list(wrong) == ["images", "scores", "gradients", "state"]
    assert min(wrong.values()) > 1e-6


def test_an_unknown_implementation_is_one_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["no_such_module"]) == 2
    assert "unknown implementation 'no_such_module'" in capsys.readouterr().err
