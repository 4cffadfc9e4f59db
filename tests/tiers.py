"""Which tests a run takes, and which of them share a process.

The default tier leaves out what `@pytest.mark.slow` marks; `--all` takes everything. Processes of
pytest-xdist are given tests by framework, so that none holds more than one where it can be helped.
"""

import re
from collections.abc import Iterable
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from shared.interface import IMPLEMENTATIONS

SLOW_IN_TF_AND_JAX = pytest.mark.slow("tf", "jax")
"""TensorFlow traces and JAX compiles each new program; the default tier has another of its kind."""

EAGER_TENSORFLOW = pytest.mark.usefixtures("eager_tensorflow")


def one_in(count: int, cases: Iterable[Any]) -> list[Any]:
    """Return parameters of which the default tier has every so-many-th, from the first on."""
    marked = []
    for number, case in enumerate(cases):
        values = case if isinstance(case, tuple) else (case,)
        marked.append(pytest.param(*values, marks=[pytest.mark.slow] if number % count else []))
    return marked


def quick_first(quick: list[tuple], every: list[tuple]) -> list[Any]:
    """Return parameters, the quick ones first; TensorFlow and JAX leave the others out."""
    others = (pytest.param(*case, marks=SLOW_IN_TF_AND_JAX) for case in every if case not in quick)
    return [*quick, *others]


class FrameworkScheduling(LoadScopeScheduling):
    """Gives a process all tests of one framework, or those of one file."""

    def _split_scope(self, nodeid: str) -> str:
        return process_of(nodeid)


def process_of(nodeid: str) -> str:
    """Return the name of what shares a process: a framework, or a file.

    >>> process_of("tests/a.py::test_b[tf-float64]"), process_of("tests/a.py::test_b[pytorch-tf]")
    ('tf', 'tests/a.py')
    """
    frameworks = frameworks_of(nodeid)
    return frameworks.pop() if len(frameworks) == 1 else nodeid.partition("::")[0]


def frameworks_of(nodeid: str) -> set[str]:
    """Return the frameworks among a test's parameters."""
    _, _, parameters = nodeid.partition("[")
    return set(re.split(r"[^a-z0-9]+", parameters)) & set(IMPLEMENTATIONS)


def is_slow(item: pytest.Item) -> bool:
    """Whether a test is in the whole suite alone: marked slow, at all or with its framework."""
    markers = list(item.iter_markers("slow"))
    return any(not m.args or frameworks_of(item.nodeid) & set(m.args) for m in markers)


def is_named(item: pytest.Item, config: pytest.Config) -> bool:
    """Whether the command line names a test itself, as `tests/test_a.py::test_b`."""
    for argument in config.args:
        path, is_test, name = argument.partition("::")
        file = (config.invocation_params.dir / path).resolve()
        if is_test and file == item.path and item.nodeid.partition("::")[2].startswith(name):
            return True
    return False


def choose(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the tier, and those that are named."""
    if config.getoption("--all"):
        return
    rest = config.getoption("--rest")
    kept = [item for item in items if is_slow(item) == rest or is_named(item, config)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
