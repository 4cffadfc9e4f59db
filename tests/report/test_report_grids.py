"""Which sample grids a report shows: many, large, damaged ones."""

from pathlib import Path

import numpy as np
import pytest

from shared.report.page import MOST_GRIDS, choose_grids, evenly
from shared.report.runs import read_run
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
def test_as_many_grids_as_fit(most: int, expected: int, tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", steps=6, sample_every=1), "run")
    sizes = [path.stat().st_size for path in run.grids.values()]
    chosen, notes = choose_grids(run, most * max(sizes) + 0.5)
    assert len(chosen) == expected
    assert chosen[-1].step == 6
    assert bool(notes) == (expected < 7)


def test_runs_share_the_bytes_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [write_run(tmp_path / name, steps=30, sample_every=1) for name in "ab"]
    monkeypatch.setattr("shared.report.page.MOST_BYTES", 2000)
    images = [image["src"] for image in report(*runs).all("img")]
    assert 10 < len(images) < 40
    assert sum(len(source.split(",")[1]) * 3 / 4 for source in images) < 2000


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
        chosen, notes = choose_grids(run, 1e9)
        assert [grid.step for grid in chosen] == [0, 4, 8]
        assert "step_000012.png cannot be read and is left out" in notes[0]
        assert str(tmp_path) not in notes[0]
    page = report(folder)
    shown = [i for i in figures(page)[0].all("img") if "hidden" not in i.attributes]
    assert [image["data-step"] for image in shown] == ["8"]
