"""Which sample grids a report shows: many, large, damaged ones."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.report.__main__ import MOST_GRIDS, choose_grids, evenly
from shared.report.runs import read_run
from shared.run.pictures import save_png
from tests.report.pages import figures, report, write_run


def test_of_many_grids_sixty_are_chosen_evenly(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=200, sample_every=1)
    page = report(run)
    steps = [int(image["data-step"]) for image in figures(page)[0].all("img")]
    assert len(steps) == 60
    assert (steps[0], steps[-1]) == (0, 200)
    assert set(np.diff(steps).tolist()) == {3, 4}
    assert "run: 60 of 201 sample grids are shown, evenly chosen" in page.text


@pytest.mark.parametrize(("most", "expected"), [(7, 7), (3, 3), (1, 1), (0, 1)])
def test_as_many_grids_as_asked_for(most: int, expected: int, tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", steps=6, sample_every=1), "run")
    chosen, notes = choose_grids(run, most)
    assert len(chosen) == expected
    assert chosen[-1].step == 6
    assert notes == (
        []
        if expected == 7
        else [f"{expected} of 7 sample grids are shown, evenly chosen; all are in run/samples."]
    )


def test_runs_share_the_grids_of_a_page(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, steps=30, sample_every=1) for name in "abc"]
    assert [len(figure.all("img")) for figure in figures(report(*runs))] == [20, 20, 20]


def test_a_large_grid_is_made_smaller(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=1)
    pixels = np.zeros((2066, 1033, 3), np.uint8)
    pixels[1033:] = 200, 30, 90
    save_png(folder / "samples" / "step_000001.png", pixels)
    grid = choose_grids(read_run(folder, "run"), 1)[0][0]
    assert (grid.width, grid.height) == (600, 1200)
    with Image.open(io.BytesIO(grid.content), formats=["WEBP"]) as image:
        shown = np.asarray(image).astype(float)
    assert np.abs(shown[:590]).max() <= 2
    assert np.abs(shown[610:] - [200, 30, 90]).max() <= 4


def test_evenly_always_has_the_last() -> None:
    assert evenly(5, 5) == [0, 1, 2, 3, 4]
    assert evenly(5, 1) == [4]
    assert evenly(0, 0) == []
    for total in range(1, 130):
        for count in range(2, min(total, MOST_GRIDS) + 1):
            chosen = evenly(total, count)
            assert (chosen[0], chosen[-1], len(chosen)) == (0, total - 1, count)


def test_a_damaged_grid_is_left_out_wherever_it_is_cut(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    last = folder / "samples" / "step_000012.png"
    content = last.read_bytes()
    run = read_run(folder, "run")
    for length in range(len(content) - 12):  # the 12 bytes of IEND hold nothing
        last.write_bytes(content[:length])
        chosen, notes = choose_grids(run, 60)
        assert [grid.step for grid in chosen] == [0, 4, 8]
        assert "step_000012.png cannot be read and is left out" in notes[0]
        assert str(tmp_path) not in notes[0]
    page = report(folder)
    shown = [i for i in figures(page)[0].all("img") if "hidden" not in i.attributes]
    assert [image["data-step"] for image in shown] == ["8"]
