"""Data for the evaluation of a run."""

from pathlib import Path

import pytest

from tests.studies.evaluated_run import write_data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "images.npz")
