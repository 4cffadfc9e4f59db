"""What tests of a run share."""

import pytest

from shared.quality import sample_quality


@pytest.fixture
def quick_sample_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take few patches and directions: half of the time of a short run went into its figure."""
    monkeypatch.setattr(sample_quality, "PATCHES_PER_IMAGE", 8)
    monkeypatch.setattr(sample_quality, "DIRECTIONS", 16)
