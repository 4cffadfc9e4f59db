"""Commands of the documents and of their scripts: what they run is there."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.run.pictures import save_png, tiles
from tests import ROOT

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "docs/**/*.sh", ".ci/*", ".github/**/*.yml")
    for path in ROOT.glob(pattern)
)
MODULE = re.compile(r"python -m ([a-z]\w*(?:\.\w+)+)")
ROOMS = r"(?:benchmarks|docs|shared|tests|\w+_impl)"
FILE = re.compile(rf"(?<![\w.]){ROOMS}/(?:\w+/)*\w+\.(?:py|js|sh)\b|(?<![\w.])\.ci/\w+\b")
OF_READERS = ("my_package",)
"""What a command calls that its reader has."""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_run_exists(path: Path) -> None:
    text = path.read_text("utf-8")
    for module in set(MODULE.findall(text)):
        if not module.startswith(OF_READERS):
            assert importlib.util.find_spec(module), module
    for file in set(FILE.findall(text)):
        assert (ROOT / file).is_file(), file


def test_scripts_name_what_is_there() -> None:
    found = {name for path in PAGES for name in FILE.findall(path.read_text("utf-8"))}
    assert {"docs/images/side_by_side.py", "docs/gallery/make_gallery.sh", ".ci/run"} <= found
    assert FILE.findall("python docs/gone.py runs/a.py; .ci/run") == ["docs/gone.py", ".ci/run"]
    assert MODULE.findall("`python -m shared.gone RUN`, python -m X_impl.train") == ["shared.gone"]


def test_grids_stand_side_by_side(tmp_path: Path) -> None:
    pixels = np.arange(2 * 4 * 5 * 5 * 3).reshape(2, 4, 5, 5, 3).astype(np.uint8)
    grids = [tmp_path / f"{i}.png" for i in range(2)]
    for grid, images in zip(grids, pixels, strict=True):
        save_png(grid, tiles(images, columns=2))
    script, out = ROOT / "docs/images/side_by_side.py", tmp_path / "out.png"
    subprocess.run([sys.executable, script, out, "5", "1", *grids], check=True)
    with Image.open(out) as image:
        shown = np.asarray(image)
    assert shown.shape == (9, 9 + 12 + 9, 3)  # one image each, in gutters of 2, and 12 between
    for i, images in enumerate(pixels):
        assert np.array_equal(shown[2:7, 21 * i + 2 : 21 * i + 7], images[0])
