"""A run's pictures, and the quality of its samples."""

import csv
import os

import numpy as np
import pytest
from PIL import Image

from shared.data.dataset import load_dataset, to_image_range, to_pixels
from shared.quality.metrics import SampleQuality, sliced_wasserstein_distance
from shared.run.folder import LOSS_COLUMNS, RunFolder
from shared.run.pictures import moving_average, save_png, tiles
from shared.run.training import TrainingRun
from shared.spec import SYSTEMS, streams
from tests.run.stand_in_run import GREY, SPEC, FakeState, fit, stop_at

# --- the quality of the samples --------------------------------------------------------------


def quality_rows(out):
    with open(out / "quality.csv", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("spec", [SPEC, GREY], ids=["colour", "grey"])
def test_quality_is_the_distance_of_each_grid(make_options, spec, capsys):
    options = make_options(spec=spec)
    run = TrainingRun(options, device="cpu", versions={})
    state, images = FakeState(options, None), {}
    with run:
        for step in run.remaining_steps():
            run.record(step, state.step(*run.inputs(step)))
            if run.sample_due(step):
                images[step + 1] = state.generate(run.sample_latents)
                run.save_samples(step, images[step + 1])
    rows = quality_rows(options.out)
    assert rows[0] == ["step", "swd"]
    assert [int(row[0]) for row in rows[1:]] == [20, 25]
    dataset = load_dataset(options.data, spec)
    # Ten images in the data set, so ten of the samples are compared.
    order = streams.stream(0, "sample_quality").permutation(10)
    real = to_image_range(dataset.images[order], spec)
    for completed, distance in rows[1:]:
        levels = sliced_wasserstein_distance(
            real,
            images[int(completed)][:10],
            spec.image_range,
            patches_per_image=64,
            directions=128,
        )
        assert float(distance) == pytest.approx(np.mean([*levels.values()]), rel=1e-14)
        assert float(distance) > 10
    printed = capsys.readouterr().out
    assert "SWD, sliced Wasserstein distance of 10 samples to 10 real images; rough\n" in printed
    assert printed.endswith(f"quality        SWD {float(rows[-1][1]):.0f}\n")


def test_quality_of_real_images_is_lower_than_of_others():
    dataset = load_dataset(None, SYSTEMS["conv28"])
    quality = SampleQuality(dataset, SYSTEMS["conv28"], 64)
    floor = quality.distance_of_real_images()
    real = to_image_range(dataset.images[1000:1064], SYSTEMS["conv28"])
    noise = np.random.default_rng(0).uniform(0, 1, real.shape)
    blurred = (real + np.roll(real, 3, axis=1) + np.roll(real, 3, axis=2)) / 3
    # Measured 40, 35, 94 and 224.
    assert 20 < floor < 50
    assert quality.distance(real) < 50
    assert quality.distance(blurred) > 70
    assert quality.distance(noise) > 150
    again = SampleQuality(dataset, SYSTEMS["conv28"], 64)
    assert again.distance(noise) == quality.distance(noise)


@pytest.mark.parametrize("value", [0.25, float("nan")])
def test_samples_without_a_distance_leave_nan_and_do_not_stop_the_run(make_options, value):
    options = make_options(steps=1)
    run = TrainingRun(options, device="cpu", versions={})
    state = FakeState(options, None)
    with run:
        for step in run.remaining_steps():
            run.record(step, state.step(*run.inputs(step)))
            run.save_samples(step, np.full((64, 64, 64, 3), value))
    assert quality_rows(options.out) == [["step", "swd"], ["1", "nan"]]


def test_resumed_quality_has_every_step_once(make_options, tmp_path):
    whole = make_options(out=tmp_path / "whole", sample_every=4, checkpoint_every=13)
    fit(whole)
    options = make_options(sample_every=4, checkpoint_every=13)
    with pytest.raises(RuntimeError, match="crash"):
        fit(options, stop_at(23))
    assert quality_rows(options.out)[-1][0] == "20"  # beyond the checkpoint
    with open(options.out / "quality.csv", "a") as file:
        file.write("24,0.")  # what a crash cuts off
    fit(make_options(sample_every=4, checkpoint_every=13, resume=True))
    rows = quality_rows(options.out)
    assert [int(row[0]) for row in rows[1:]] == [0, 4, 8, 12, 16, 20, 24, 25]
    assert rows == quality_rows(whole.out)


# --- the pictures ----------------------------------------------------------------------------


def test_grid_places_every_pixel():
    images = np.linspace(-1, 1, 3 * 4 * 5 * 3).reshape(3, 4, 5, 3)
    grid = tiles(to_pixels(images, (-1.0, 1.0)), columns=2)
    assert grid.dtype == np.uint8
    assert grid.shape == (2 + 2 * (4 + 2), 2 + 2 * (5 + 2), 3)
    expected = np.full_like(grid, 255)
    pixels = np.rint((images + 1) * 127.5).astype(np.uint8)
    expected[2:6, 2:7] = pixels[0]
    expected[2:6, 9:14] = pixels[1]
    expected[8:12, 2:7] = pixels[2]
    np.testing.assert_array_equal(grid, expected)


def test_grid_uses_the_range_and_cuts_off_beyond():
    values = np.array([-5.0, 0.0, 0.5, 1.0, 5.0, np.nan]).reshape(1, 1, 6, 1)
    row = tiles(to_pixels(values, (0.0, 1.0)))[2, 2:-2, 0]
    assert row.tolist() == [0, 0, 128, 255, 255, 0]


def test_grid_of_fewer_images_than_columns_is_as_wide_as_they_are():
    assert tiles(np.zeros((3, 4, 4, 1), np.uint8)).shape == (8, 20, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_the_pixels(tmp_path, channels):
    pixels = np.arange(4 * 5 * channels, dtype=np.uint8).reshape(4, 5, channels)
    save_png(tmp_path / "a.png", pixels)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)
    assert os.listdir(tmp_path) == ["a.png"]


def test_loss_plot_is_a_picture_and_needs_a_step(tmp_path):
    folder, header = RunFolder(tmp_path), ",".join(LOSS_COLUMNS)
    folder.losses.write_text(f"{header}\n")
    folder.plot_losses()
    assert not folder.losses_plot.exists()
    folder.losses.write_text(f"{header}\n1,0.5,0.2,0.3,0.7,1.0\n")
    folder.plot_losses()
    with Image.open(folder.losses_plot) as image:
        assert image.size == (960, 540)


def test_moving_average_is_centred_and_true_at_the_ends():
    values = np.array([1.0, 2.0, 6.0, 4.0, 5.0])
    np.testing.assert_allclose(moving_average(values, 3), [1.5, 3.0, 4.0, 5.0, 4.5], rtol=1e-15)
    np.testing.assert_array_equal(moving_average(values, 1), values)
