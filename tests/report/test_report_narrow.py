"""A report at 400 pixels, in a browser: nothing of it lies outside of what is seen."""

from pathlib import Path

import pytest

from tests.browser import measured
from tests.report.pages import report, write_run

MEASURE = """
for (const details of document.querySelectorAll("details")) details.open = true;
const seen = [document.documentElement, ...document.querySelectorAll("body, table, ul, p, svg")];
const wide = seen.filter((element) => element.scrollWidth > element.clientWidth + 1);
return {seen: seen.length, over: wide.map((element) => element.tagName + element.scrollWidth)};
"""


@pytest.mark.slow
def test_nothing_of_three_runs_is_cut_off_at_400_pixels(tmp_path: Path) -> None:
    names = ("jax-dcgan64-bce", "tf-dcgan64-lsgan-of-last-week", "pytorch_dcgan64_again")
    long = {"device": "NVIDIA_H100_80GB_HBM3_of_somebody", "platform": "Linux-6.18.44-fc-x86_64"}
    report(*(write_run(tmp_path / name, **long) for name in names))
    found = measured({"page": tmp_path / "page.html"}, MEASURE, 400, tmp_path / "profile")["page"]
    assert found["seen"] > 15
    assert found["over"] == []
