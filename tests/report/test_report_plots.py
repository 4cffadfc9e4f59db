"""The plots of a report: what is drawn is read off its axes and held against the CSV."""

import re
from pathlib import Path

import numpy as np
import pytest

from shared.interface import METRIC_NAMES
from shared.report.page import run_style
from shared.run.folder import LOSS_COLUMNS
from tests.report.pages import Element, column, plots, report, write_run


def axis(panel: Element, letter: str) -> tuple[float, float]:
    """Return slope and offset from a coordinate of the SVG to a value, by the ticks' labels."""
    places, values = [], []
    for tick in panel.all("g"):
        if re.search(rf"^{letter}tick_\d+$", tick.attributes.get("id") or ""):
            places.append(float(tick.all("use")[0][letter]))
            values.append(float(tick.all("text")[0].text.replace("−", "-")))
    assert len(places) > 1
    slope, offset = np.polyfit(places, values, 1)
    np.testing.assert_allclose(np.polyval((slope, offset), places), values, atol=1e-6 * abs(slope))
    return slope, offset


def drawn(page: Element, title: str, group: str) -> np.ndarray:
    """Return the points [n, 2] of a line as steps and values; a gap is a row of NaN."""
    panel = plots(page)[title]
    (line,) = panel.all("g", id=group)
    points = []
    for command, x, y in re.findall(r"([ML]) (\S+) (\S+)", line.all("path")[0]["d"]):
        points += [(np.nan, np.nan)] if command == "M" and points else []
        points.append((float(x), float(y)))
    scales = [axis(panel, letter) for letter in "xy"]
    return np.array(points) * [s for s, _ in scales] + [o for _, o in scales]


def shown_values(page: Element, title: str) -> tuple[float, float]:
    """Return the lowest and the highest value of a panel's axes."""
    panel = plots(page)[title]
    (background,) = panel.all("g", id="patch_2")
    heights = re.findall(r"[ML] \S+ (\S+)", background.all("path")[0]["d"])
    low, high = sorted(np.polyval(axis(panel, "y"), [float(y) for y in heights])[[0, 2]])
    return low, high


def average(values: np.ndarray, before: int, after: int) -> list[float]:
    """Return the mean of what lies around each value, of less at the ends."""
    return [values[max(0, i - before) : i + after + 1].mean() for i in range(len(values))]


def test_short_runs_are_drawn_value_by_value(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", seed=1), write_run(tmp_path / "b", seed=2, steps=7)]
    page = report(*runs)
    assert list(plots(page)) == [*METRIC_NAMES, "swd"]
    for number, run in enumerate(runs):
        steps = column(run / "losses.csv", "step")
        for title in METRIC_NAMES:
            found = drawn(page, title, f"{title}-{number}")
            values = column(run / "losses.csv", title)
            np.testing.assert_allclose(found, np.transpose([steps, values]), atol=1e-5)


def test_longer_runs_are_drawn_value_by_value_and_as_an_average(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", steps=100)
    page = report(run)
    assert "Pale: every step. Over it: mean of 5 steps." in page.text
    steps = column(run / "losses.csv", "step")
    for title in METRIC_NAMES:
        values = column(run / "losses.csv", title)
        low, high = shown_values(page, title)
        raw = drawn(page, title, f"{title}-0-raw")
        raw = raw[(raw[:, 1] > low) & (raw[:, 1] < high)]  # what lies outside is cut at the edge
        inside = (values > low) & (values < high)
        assert inside.mean() > 0.97
        np.testing.assert_allclose(raw, np.transpose([steps, values])[inside], atol=1e-5)
        smooth = drawn(page, title, f"{title}-0")
        np.testing.assert_allclose(smooth[:, 1], average(values, 2, 2), atol=1e-5)


def test_quality_is_drawn(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    found = drawn(report(run), "swd", "swd-0")
    expected = [column(run / "quality.csv", name) for name in ("step", "swd")]
    np.testing.assert_allclose(found, np.transpose(expected), atol=1e-3)


def test_lines_have_the_colour_that_the_legend_gives_the_run(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    page = report(*runs)
    legend = page.of_class("legend")[0].all("li")
    assert [item.text for item in legend] == ["a", "b", "c"]
    for number, item in enumerate(legend):
        colour = item.all("line")[0]["stroke"]
        for title in METRIC_NAMES:
            (line,) = plots(page)[title].all("g", id=f"{title}-{number}")
            assert f"stroke: {colour}" in line.all("path")[0]["style"]


def test_thirty_six_runs_have_styles_of_their_own() -> None:
    assert len({run_style(number) for number in range(36)}) == 36


def test_of_a_long_run_every_stretch_keeps_its_extremes_and_the_page_stays_small(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path / "a", steps=20_000, sample_every=20_000)
    page = report(run)
    steps, values = (column(run / "losses.csv", name) for name in ("step", "generator_loss"))
    found = drawn(page, "generator_loss", "generator_loss-0-raw")
    assert len(found) < 4000
    low, high = shown_values(page, "generator_loss")
    panel = plots(page)["generator_loss"]
    pixels = [abs(axis(panel, letter)[0]) for letter in "xy"]  # of one point of the SVG
    assert (found[0, 0], found[-1, 0]) == pytest.approx((1, 20_000), abs=pixels[0])
    found[:, 1] = found[:, 1].clip(low, high)  # what lies outside is cut at the edge
    for start in range(0, 20_000, 500):
        stretch = values[start : start + 500].clip(low, high)
        near = found[np.abs(found[:, 0] - steps[start] - 250) < 250 + 2 * pixels[0], 1]
        assert near.max() >= stretch.max() - pixels[1]
        assert near.min() <= stretch.min() + pixels[1]


def test_a_spike_does_not_flatten_the_rest(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", steps=300), write_run(tmp_path / "b", steps=200, seed=1)]
    with open(runs[0] / "losses.csv", "a") as table:
        table.write("301,9000,1,1,1,500.0\n")
    page = report(*runs)
    low, high = shown_values(page, "discriminator_loss")
    found = [column(run / "losses.csv", "discriminator_loss") for run in runs]
    averages = [*average(found[0], 7, 7), *average(found[1], 5, 4)]
    assert low < min(averages)
    assert max(averages) < high < 1.1 * max(averages)
    # The last eight averages hold the spike, and an average is never cut off.
    assert max(averages) == pytest.approx(9000 / 8, rel=0.01)
    for values in found:
        assert ((values > low) & (values < high)).mean() > 0.97


def test_of_every_run_all_but_the_outermost_values_are_seen(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, steps=400, seed=len(name)) for name in ("a", "bb")]
    table = (runs[1] / "losses.csv").read_text().splitlines()
    far = [table[0], *(re.sub(r"^(\d+),[^,]*", r"\1,50.25", line) for line in table[1:])]
    (runs[1] / "losses.csv").write_text("\n".join(far) + "\n")
    low, high = shown_values(report(*runs), "discriminator_loss")
    values = column(runs[0] / "losses.csv", "discriminator_loss")
    assert low < np.percentile(values, 1)
    assert 50.25 < high < 60


def test_a_loss_that_is_not_finite_is_a_gap_and_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", steps=9)
    table = [line.split(",") for line in (run / "losses.csv").read_text().splitlines()]
    place = LOSS_COLUMNS.index("generator_loss")
    table[5][place], table[6][place], table[9][place] = "nan", "-inf", "1e101"
    (run / "losses.csv").write_text("".join(",".join(row) + "\n" for row in table))
    page = report(run)
    gap = "what is NaN, infinite or beyond 1e+100 is a gap in the plot (3 in all)."
    assert f"generator_loss is NaN at step 5; {gap}" in page.text
    assert "discriminator_loss is" not in page.text
    found = drawn(page, "generator_loss", "generator_loss-0")
    values = column(run / "losses.csv", "generator_loss")
    steps = [1, 2, 3, 4, np.nan, 7, 8]
    np.testing.assert_allclose(found[:, 0], steps, atol=1e-5)
    np.testing.assert_allclose(found[5:, 1], values[6:8], atol=1e-5)
    assert not np.isnan(drawn(page, "discriminator_loss", "discriminator_loss-0")).any()
