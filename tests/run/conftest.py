"""What tests of a run share."""

import pytest

from shared.quality import metrics


@pytest.fixture
def quick_sample_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take few patches and directions: half of the time of a short run went into its figure."""
    monkeypatch.setattr(metrics, "QUICK_PATCHES", 8)
    monkeypatch.setattr(metrics, "QUICK_DIRECTIONS", 16)
