"""Which tests are run on a mutant, and in which order: the likeliest to fail on it first."""

from __future__ import annotations

from typing import Literal

from tests.planted.fault import Fault
from tests.planted.faults import FAULTS
from tests.planted.faults_of_runs import RUNS

Kind = Literal["mathematics", "runs"]
KINDS: dict[Kind, tuple[Fault, ...]] = {"mathematics": FAULTS, "runs": RUNS}

# What covers an implementation, the quickest first. Those marked slow too.
EVERY_TEST = tuple(
    f"tests/test_{name}.py"
    for name in (
        *("agreement", "losses", "adam", "batch_norm", "systems", "models", "train_command"),
        *("native_formats", "precision", "interface", "conformance", "explain", "convert"),
        "change_of_framework",
    )
)
# Of faults of runs: changed file → files of tests and which tests of them.
_OF_RUNS = {
    "native_format.py": (("native_formats",), ""),
    "activations.py": (("explain",), ""),
    "adapter.py": (("models",), "forward or gradients"),
    "checkpoint.py": (("agreement", "models"), "agrees or import or export"),
    "state.py": (("train_command",), "gpu"),
    "train.py": (("train_command",), "every_step_of_a_run"),
}


def kind_of(name: str) -> Kind:
    """Return the kind of a fault by its name."""
    return "runs" if any(name == fault.name for fault in RUNS) else "mathematics"


def stages(framework: str, fault: Fault) -> list[list[str]]:
    """Return pytest's arguments for the first tests and, if those pass, for all."""
    own = f"({framework} or every_framework)"
    names, words = _first(framework, fault)
    first = f"{own} and ({words})" if words else own
    common = ["-x", "-q", "-p", "no:cacheprovider", "--tb=no", "-k"]
    files = [f"tests/test_{name}.py" for name in names]
    return [[*common, first, *files], [*common, own, *EVERY_TEST]]


def _first(framework: str, fault: Fault) -> tuple[tuple[str, ...], str]:
    """Return the files of tests that notice soonest, and which of their tests; "" for all."""
    changed = {edit.file for edit in fault.edits[framework]}
    if kind_of(fault.name) == "runs":
        return next(tests for file, tests in _OF_RUNS.items() if file in changed)
    if "initializer" in fault.deviation:
        return ("models",), "full_width"
    if fault.start == "tiny_gradients":
        return ("adam",), "first_updates"
    if "losses.py" in changed and fault.spec.loss != "bce":
        return ("losses",), f"every_case_of_the_fixture and {fault.spec.loss}"
    if fault.spec_changes:
        return ("systems",), "order_of_a_step"
    if fault.system == "dcgan64-lsgan":
        return ("models",), "one_step and dcgan64-lsgan and float64"
    if fault.system != "dcgan64":
        return ("systems",), "forward and float64"
    return ("agreement",), ""
