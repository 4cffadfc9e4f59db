"""Which tests a run takes, and which of them share a process.

The default tier leaves out what `@pytest.mark.slow` marks; `--all` takes everything. Processes of
pytest-xdist are given tests by framework, so that none holds more than one where it can be helped.
"""

from __future__ import annotations

import pytest

from shared.interface import IMPLEMENTATIONS


def framework_of(item: pytest.Item) -> str:
    """Return the framework among a test's parameters, "" if there is none."""
    call = getattr(item, "callspec", None)
    values = call.params.values() if call else ()
    return next((v for v in values if isinstance(v, str) and v in IMPLEMENTATIONS), "")


def is_slow(item: pytest.Item) -> bool:
    """Whether a test is in the whole suite alone: marked slow, at all or with its framework."""
    markers = list(item.iter_markers("slow"))
    return any(not marker.args or framework_of(item) in marker.args for marker in markers)


def divide(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the tier, and those asked for by name; name each one's process.

    A file says with `pytest.mark.xdist_group` that its tests share another process than those of
    the framework among their parameters.
    """
    if not config.getoption("--all") and not any("::" in argument for argument in config.args):
        wanted = config.getoption("--rest")
        config.hook.pytest_deselected(items=[item for item in items if is_slow(item) != wanted])
        items[:] = [item for item in items if is_slow(item) == wanted]
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(framework_of(item) or item.path.stem))
