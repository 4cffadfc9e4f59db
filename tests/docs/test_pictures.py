"""The scripts that make the documents' pictures."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.run.pictures import save_png, tiles
from tests import ROOT

SCRIPTS = ("docs/images/make_facades.sh", "docs/gallery/make_gallery.sh")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_calls_programs_that_are_there(script: str) -> None:
    called = re.findall(r"python (\S+\.py)", (ROOT / script).read_text("utf-8"))
    assert called
    assert all((ROOT / program).is_file() for program in called), called


def test_the_first_images_of_grids_are_put_side_by_side(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    grids = [draw.integers(0, 256, (64, 8, 8, 3), np.uint8) for _ in range(2)]
    for i, images in enumerate(grids):
        save_png(tmp_path / f"{i}.png", tiles(images))
    script = ROOT / "docs/images/side_by_side.py"
    files = ["out.png", "8", "3", "0.png", "1.png"]
    subprocess.run([sys.executable, script, *files], cwd=tmp_path, check=True)
    made = np.asarray(Image.open(tmp_path / "out.png"))
    side, gap = 3 * (8 + 2) + 2, 12
    assert made.shape == (side, 2 * side + gap, 3)
    for i, images in enumerate(grids):
        for row, column in np.ndindex(3, 3):
            top, left = 2 + 10 * row, i * (side + gap) + 2 + 10 * column
            cell = made[top : top + 8, left : left + 8]
            assert np.array_equal(cell, images[8 * row + column])
