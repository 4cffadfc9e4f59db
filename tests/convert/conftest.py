"""Threads of the frameworks that files are converted between."""

from __future__ import annotations

import pytest

from shared.interface import IMPLEMENTATIONS, MissingFrameworkError, load_implementation
from tests.conftest import limit_threads


@pytest.fixture(scope="module", autouse=True)
def quiet_threads() -> None:
    for name in IMPLEMENTATIONS:
        try:
            load_implementation(name)
        except MissingFrameworkError:
            continue
        limit_threads(name)
