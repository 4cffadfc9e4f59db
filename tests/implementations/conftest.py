"""Fixtures of the tests of each framework's own files."""

from pathlib import Path

import pytest

from shared.formats.file_kinds import FileKind, kind_of
from shared.interface import Implementation
from tests.implementations.native_files import NAMES


@pytest.fixture
def own(implementation: Implementation) -> FileKind:
    """The format of each framework."""
    return kind_of(Path(NAMES[implementation.name]))


@pytest.fixture
def path(implementation: Implementation, tmp_path: Path) -> Path:
    return tmp_path / NAMES[implementation.name]
