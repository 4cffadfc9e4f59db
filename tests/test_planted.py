"""The planted faults: each changed implementation computes what the reference with its name does.

All of them in all frameworks: `python -m tests.apparatus.planted`.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from shared.interface import (
    IMPLEMENTATIONS,
    load_implementation,
)
from shared.spec import Conventions
from tests.apparatus.planted.__main__ import main
from tests.apparatus.planted.fault import Edit, Fault, everywhere
from tests.apparatus.planted.faults import FAULTS, get_fault
from tests.apparatus.planted.mutate import load_mutated, mutated, mutated_sources, unload
from tests.apparatus.planted.probe import (
    CANONICAL_BOUND,
    TRUTH_BOUND,
    Numbers,
    canonical_error,
    canonical_numbers,
    largest,
    measure,
    truth_error,
)
from tests.conftest import require_framework
from tests.tiers import EAGER_TENSORFLOW, SLOW_IN_TF_AND_JAX, one_in

# Of TensorFlow and JAX, of which the one traces every copy anew and the other compiles every
# operation of a new shape: the longest edits.
SAMPLE = (
    "statistics_never_move",
    "batches_merged",
    "padding_before",
    "fake_not_detached",
    "adam_epsilon_before_correction",
)
CASES = [
    (framework, fault)
    for framework in IMPLEMENTATIONS
    for fault in FAULTS
    if framework == "pytorch" or fault.name in SAMPLE
]


def test_the_catalogue_covers_every_convention() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names)) >= 45
    deviating = {field for fault in FAULTS for field in fault.deviation}
    assert deviating == {field.name for field in dataclasses.fields(Conventions)}
    canonical = Conventions()
    for fault in FAULTS:
        for field, value in fault.deviation.items():
            assert getattr(canonical, field) != value, fault.name


@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize("framework", IMPLEMENTATIONS)
def test_every_edit_of_every_fault_applies(framework: str) -> None:
    for fault in FAULTS:
        assert (framework in fault.edits) != (framework in fault.absent), fault.name
        if framework in fault.edits:
            changed = mutated_sources(framework, [fault])
            assert changed != mutated_sources(framework, []), fault.name
            for file, source in changed.items():
                compile(source, file, "exec")


@EAGER_TENSORFLOW
@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize(
    ("framework", "fault"),
    one_in(3, CASES),
    ids=[f"{framework}-{fault.name}" for framework, fault in CASES],
)
def test_a_fault_is_what_it_is_said_to_be(framework: str, fault: Fault) -> None:
    require_framework(framework)
    with mutated(framework, [fault], compiled=True) as implementation:
        numbers = measure(implementation, fault.spec, fault.start)
    error, of = truth_error(numbers, fault)
    assert error <= TRUTH_BOUND, of
    error, of = canonical_error(numbers, fault)
    assert not error <= CANONICAL_BOUND, of


def test_two_faults_at_once() -> None:
    require_framework("pytorch")
    both = [get_fault("real_label_0.85"), get_fault("beta1_0.6")]
    named = Fault("both", {"real_label": 0.85, "adam_beta1": 0.6}, {})
    with mutated("pytorch", both) as implementation:
        numbers = measure(implementation, named.spec, named.start)
    assert truth_error(numbers, named)[0] <= TRUTH_BOUND
    for one in both:
        assert truth_error(numbers, one)[0] > CANONICAL_BOUND


def test_faults_in_the_same_place_clash() -> None:
    with pytest.raises(ValueError, match=r"beta1_0.6 does not apply to .*found .* 0 times"):
        mutated_sources("pytorch", [get_fault("beta1_0.9"), get_fault("beta1_0.6")])


@pytest.mark.parametrize(
    "edit",
    [
        Edit("train.py", "a text that is nowhere", ""),
        Edit("no_such_file.py", "x", ""),
        Edit("train.py", "state", "", count=1),
    ],
)
def test_an_edit_that_does_not_apply_is_an_error(edit: Edit) -> None:
    fault = Fault("rotten", {}, everywhere(edit))
    for framework in IMPLEMENTATIONS:
        with pytest.raises(ValueError, match="rotten does not apply"):
            mutated_sources(framework, [fault])


def test_an_absent_fault_is_an_error() -> None:
    fault = Fault("rotten", {}, {}, absent={"jax": "it has none"})
    with pytest.raises(ValueError, match="rotten is absent in jax: it has none"):
        load_mutated("jax", [fault])


@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize("framework", IMPLEMENTATIONS)
def test_an_unchanged_copy_gives_the_same_bits(framework: str) -> None:
    original, plain = require_framework(framework), FAULTS[0]
    with mutated(framework, [], compiled=True) as copy:
        assert type(copy) is not type(original)
        numbers = [measure(i, plain.spec, plain.start) for i in (original, copy)]
    for field in dataclasses.fields(Numbers):
        ours, theirs = (getattr(n, field.name) for n in numbers)
        assert list(ours) == list(theirs)
        for name, array in ours.items():
            np.testing.assert_array_equal(theirs[name], array, err_msg=name)
    canonical = canonical_numbers(plain.spec, plain.start)
    assert largest(plain.spec, numbers[1], canonical)[0] <= TRUTH_BOUND


def test_unload_leaves_no_module_and_no_file() -> None:
    original = require_framework("pytorch")
    copy = load_mutated("pytorch", [])
    package = type(copy).__module__.split(".", 1)[0]
    folder = Path(str(sys.modules[package].__file__)).parent
    modules = [name for name in sys.modules if name.split(".", 1)[0] == package]
    assert len(modules) > 5
    assert folder.is_dir()
    unload(copy)
    assert not [name for name in sys.modules if name.split(".", 1)[0] == package]
    assert not folder.exists()
    assert load_implementation("pytorch") is original


def test_a_copy_that_cannot_be_imported_leaves_nothing() -> None:
    require_framework("pytorch")
    fault = Fault("broken", {}, everywhere(Edit("__init__.py", '"""The', 'raise OSError\n"""The')))
    before = set(sys.modules)
    with pytest.raises(OSError):  # noqa: PT011
        load_mutated("pytorch", [fault])
    assert set(sys.modules) == before


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    require_framework("pytorch")
    assert main(["--framework", "pytorch", "--fault", "loss_sum", "beta1_0.6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["fault", "loss_sum", "beta1_0.6"]
    for line in lines[1:3]:
        truth, canonical = map(float, line.split()[1:])
        assert truth < 1e-12 < 1e-2 < canonical


def test_the_command_refuses_an_unknown_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--fault", "no_such"]) == 2
    error = capsys.readouterr().err
    assert "unknown fault 'no_such'" in error
    assert error.count("\n") == 1
