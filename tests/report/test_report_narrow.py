"""A report at 400 pixels, in a browser: nothing of it lies outside of what is seen."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.report.pages import report, write_run

# Chromium's windows are 500 pixels wide at least, its frames are not.
FRAME = """<iframe src="page.html" style="width: 400px; height: 900px"></iframe>
<script>onmessage = (message) => document.title = message.data</script>"""
MEASURE = """<script>
for (const details of document.querySelectorAll("details")) details.open = true;
const seen = [document.documentElement, ...document.querySelectorAll("body, table, ul, p, svg")];
const wide = seen.filter((element) => element.scrollWidth > element.clientWidth + 1);
const over = wide.map((element) => element.tagName + element.scrollWidth);
parent.postMessage(JSON.stringify({width: innerWidth, seen: seen.length, over}), "*");
</script>"""


@pytest.mark.slow
def test_nothing_of_three_runs_is_cut_off_at_400_pixels(tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no Chromium")
    names = ("jax-dcgan64-bce", "tf-dcgan64-lsgan-of-last-week", "pytorch_dcgan64_again")
    long = {"device": "NVIDIA_H100_80GB_HBM3_of_somebody", "platform": "Linux-6.18.44-fc-x86_64"}
    report(*(write_run(tmp_path / name, **long) for name in names))
    page, frame = tmp_path / "page.html", tmp_path / "frame.html"
    page.write_text(page.read_text("utf-8").replace("</body>", f"{MEASURE}</body>"), "utf-8")
    frame.write_text(FRAME)
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    options = ["--headless", "--no-sandbox", "--disable-gpu", profile, "--virtual-time-budget=3000"]
    command = [chromium, *options, "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title, done.stdout[:500]
    found = json.loads(title[1])
    assert found["width"] == 400
    assert found["seen"] > 15
    assert found["over"] == []
