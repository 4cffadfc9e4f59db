"""A run's folder, its bookkeeping, its display and its pictures, with NumPy as the framework."""

import csv
import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from shared.data.dataset import load_dataset, to_image_range
from shared.files.checkpoint import CheckpointError, read_checkpoint
from shared.interface import METRIC_NAMES
from shared.quality.metrics import sliced_wasserstein_distance
from shared.quality.sample_quality import SampleQuality
from shared.run import display as run_display
from shared.run import training
from shared.run.failures import NonFiniteError
from shared.run.pictures import image_grid, moving_average, plot_losses, save_png
from shared.run.training import open_run
from shared.spec import SYSTEMS, streams
from tests import ROOT
from tests.run.stand_in_run import (
    GREY,
    SPEC,
    FakeState,
    fit,
    interrupt_at,
    loss_rows,
    names,
    stop_at,
)

# --- the folder ------------------------------------------------------------------------------


def test_whole_run_leaves_the_documented_files(make_options, capsys):
    options = make_options()
    fit(options)
    out = options.out
    tables = ["losses.csv", "losses.png", "quality.csv"]
    assert names(out) == [".lock", "checkpoints", *tables, "run.json", "samples"]
    assert names(out / "samples") == ["step_000000.png", "step_000020.png", "step_000025.png"]
    checkpoints = [f"step_0000{n}.safetensors" for n in (10, 20, 25)]
    assert names(out / "checkpoints") == checkpoints
    rows = loss_rows(out)
    assert rows[0] == ["step", *METRIC_NAMES]
    assert [int(row[0]) for row in rows[1:]] == list(range(1, 26))
    last = read_checkpoint(out / "checkpoints" / checkpoints[-1], options.spec)
    assert last.progress == {
        "step": 25,
        "seed": 7,
        "batch_size": 2,
        "dtype": "float32",
        "implementation": "pytorch",
        "dataset": "10 images from images.npz",
    }
    assert int(last.arrays["generator_optimizer/step"]) == 25
    printed = capsys.readouterr().out
    for line in (
        "system         dcgan64, loss bce, width 1 (narrowed from 64)",
        f"parameters     generator {SPEC.parameter_count('generator'):,}, discriminator ",
        "data           10 images from images.npz",
        "training       25 steps of batch 2, seed 7",
        f"samples        {out / 'samples' / 'step_000025.png'}",
        f"checkpoint     {out / 'checkpoints' / checkpoints[-1]}",
        f"losses         {out / 'losses.png'}",
    ):
        assert line in printed


def test_run_json_tells_how_the_run_was_made(make_options):
    fit(make_options(steps=2))
    fit(make_options(steps=3, resume=True, implementation="jax"))
    content = json.loads((make_options().out / "run.json").read_text())
    assert content["spec"]["width"] == 1
    first, second = content["sessions"]
    assert first["versions"] == {"fake": "1.0", "numpy": np.__version__}
    assert first["options"]["seed"] == 7
    assert first["python"] == sys.version.split()[0]
    assert (first["start"], first["options"]["implementation"]) == (0, "pytorch")
    assert (second["start"], second["options"]["implementation"]) == (2, "jax")


def test_losses_are_written_to_the_last_bit(make_options):
    awkward = np.float32(0.1)
    fit(make_options(steps=1), lambda step, metrics: dict.fromkeys(METRIC_NAMES, awkward))
    assert np.float32(loss_rows(make_options().out)[1][1]) == awkward
    assert loss_rows(make_options().out)[1][1] == repr(float(awkward))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_are_the_shared_streams_in_the_dtype(make_options, dtype):
    run = open_run(make_options(dtype=dtype), device="cpu", versions={})
    real_images, latents = run.inputs(3)
    assert real_images.shape == (2, 64, 64, 3)
    assert (real_images.dtype, latents.dtype) == (dtype, dtype)
    np.testing.assert_array_equal(latents, streams.latents(SPEC, 7, 3, 2).astype(dtype))
    grid = streams.latents(SPEC, 7, 0, 64, purpose="sample_grid")
    np.testing.assert_array_equal(run.sample_latents, grid.astype(dtype))


@pytest.mark.parametrize("system", [SPEC, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("generator_batch", ["same_images", "same_latents", "new_latents"])
def test_inputs_of_several_discriminator_steps(make_options, system, generator_batch):
    spec = system.replace(discriminator_steps=3, generator_batch=generator_batch)
    run = open_run(make_options(spec=spec), device="cpu", versions={})
    single = make_options(spec=system.replace(generator_batch="same_images"))
    batches = open_run(single, device="cpu", versions={})
    for step in (4, 0):  # five batches an epoch: step 4 begins in the third
        real_images, latents = run.inputs(step)
        each = [batches.inputs(3 * step + i)[0] for i in range(3)]
        np.testing.assert_array_equal(real_images, np.concatenate(each))
        count = 2 * (4 if generator_batch == "new_latents" else 3)
        drawn = streams.latents(spec, 7, step, count).astype("float32")
        np.testing.assert_array_equal(latents, drawn)
        assert spec.batch_size_of(len(real_images), len(latents)) == 2


def test_announcement_says_what_a_step_is(make_options, capsys):
    open_run(make_options(), device="cpu", versions={})
    assert "each step" not in capsys.readouterr().out
    spec = GREY.replace(discriminator_steps=5, generator_batch="new_latents")
    open_run(make_options(spec=spec), device="cpu", versions={})
    printed = capsys.readouterr().out
    line = "each step      5 discriminator updates on fresh batches, then the generator on images"
    assert f"{line} from new latents\n" in printed
    assert "learning rates generator 0.001, discriminator 0.0002\n" in printed
    open_run(make_options(spec=GREY), device="cpu", versions={})
    line = "each step      one discriminator update, then the generator on images made anew"
    assert f"{line} from the same latents\n" in capsys.readouterr().out


def test_metrics_are_read_every_ten_steps_only(make_options):
    reads = []

    class Lazy:
        def __init__(self, step):
            self.step = step

        def __float__(self):
            reads.append(self.step)
            return 0.5

    known = []

    def during(step, metrics):
        known.append(len(reads) // len(METRIC_NAMES))
        return {name: Lazy(step) for name in METRIC_NAMES}

    fit(make_options(checkpoint_every=1000, steps=25), during)
    assert known == [0] * 10 + [10] * 10 + [20] * 5


def test_skipped_files_are_counted_and_the_first_named(make_options, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        save_png(folder / f"good_{i}.png", np.full((64, 64, 3), i, np.uint8))
    for i in range(5):
        (folder / f"bad_{i}.png").write_text("no picture")
    open_run(make_options(data=folder), device="cpu", versions={})
    printed = capsys.readouterr().out
    assert "skipped        5 files" in printed
    assert printed.count("bad_") == 3
    assert "  ...\n" in printed


def test_taken_folder(make_options):
    fit(make_options(steps=1))
    with pytest.raises(ValueError, match=r"already holds a run \(run\.json.*--resume or choose"):
        fit(make_options(steps=1))


def test_folder_that_is_a_file(make_options, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file; expected a folder"):
        fit(make_options(out=tmp_path / "file"))


def test_nothing_is_written_before_the_run_is_entered(make_options):
    options = make_options()
    open_run(options, device="cpu", versions={})
    assert not options.out.exists()


# --- resuming --------------------------------------------------------------------------------


def test_resumed_run_equals_an_unbroken_one(make_options, tmp_path):
    whole = make_options(out=tmp_path / "whole", checkpoint_every=13)
    all_inputs = fit(whole)
    with pytest.raises(RuntimeError, match="crash"):
        fit(make_options(checkpoint_every=13), stop_at(23))
    assert loss_rows(make_options().out)[-1][0] == "23"  # beyond the checkpoint
    # The other framework goes on from where the first one left its last checkpoint.
    resumed = fit(make_options(checkpoint_every=13, resume=True, implementation="tf"))
    assert [step for step, _, _ in resumed] == list(range(13, 25))
    for (_, images, latents), (_, all_images, all_latents) in zip(
        resumed, all_inputs[13:], strict=True
    ):
        np.testing.assert_array_equal(images, all_images)
        np.testing.assert_array_equal(latents, all_latents)
    out = make_options().out
    assert loss_rows(out) == loss_rows(whole.out)
    last = "checkpoints/step_000025.safetensors"
    one, other = read_checkpoint(out / last).arrays, read_checkpoint(whole.out / last).arrays
    assert all(one[name].tobytes() == other[name].tobytes() for name in other)
    assert (out / "samples/step_000025.png").read_bytes() == (
        whole.out / "samples/step_000025.png"
    ).read_bytes()


def test_seconds_go_on_counting(make_options):
    fit(make_options(steps=2))
    losses = make_options().out / "losses.csv"
    lines = losses.read_text().splitlines()
    lines[-1] = lines[-1].rsplit(",", 1)[0] + ",100.000"
    losses.write_text("\n".join(lines) + "\n")
    fit(make_options(steps=3, resume=True))
    assert float(losses.read_text().splitlines()[-1].rsplit(",", 1)[1]) >= 100


def test_row_that_a_crash_cut_off_is_dropped(make_options):
    fit(make_options(steps=2))
    losses = make_options().out / "losses.csv"
    losses.write_text(losses.read_text() + "3,0.1,0.")
    fit(make_options(steps=3, resume=True))
    assert [row[0] for row in loss_rows(make_options().out)] == ["step", "1", "2", "3"]


def test_complete_run_says_so_and_does_nothing(make_options, capsys):
    fit(make_options())
    before = loss_rows(make_options().out)
    assert fit(make_options(resume=True)) == []
    printed = capsys.readouterr().out
    assert "already complete: 25 steps are done, --steps asks for 25" in printed
    assert loss_rows(make_options().out) == before


def test_corrupt_last_checkpoint_falls_back(make_options, capsys):
    fit(make_options())
    last = make_options().out / "checkpoints" / "step_000025.safetensors"
    content = last.read_bytes()
    last.write_bytes(content[:-100])
    assert [step for step, _, _ in fit(make_options(resume=True))] == list(range(20, 25))
    printed = capsys.readouterr().out
    assert f"skipped: {last}: expected a complete safetensors file" in printed
    assert "step_000020.safetensors (written by pytorch)" in printed
    assert read_checkpoint(last).progress["step"] == 25


def test_all_checkpoints_corrupt(make_options):
    fit(make_options(steps=11))
    for path in (make_options().out / "checkpoints").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=r"no checkpoint can be read: .*000011.*000010"):
        fit(make_options(resume=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spec": SPEC.replace(width=2)}, "width: 1 in the checkpoint, 2 asked for"),
        ({"spec": SPEC.replace(loss="lsgan")}, "loss: bce in the checkpoint, lsgan asked for"),
        ({"spec": SPEC.replace(batch_size=3)}, "batch_size: 2 in the checkpoint, 3 asked for"),
        ({"seed": 8}, "seed: 7 in the checkpoint, 8 asked for"),
        ({"dtype": "float64"}, "dtype: float32 in the checkpoint, float64 asked for"),
    ],
)
def test_resume_with_other_options_names_them(make_options, changes, message):
    fit(make_options(steps=1))
    with pytest.raises(CheckpointError, match=message):
        fit(make_options(resume=True, **changes))


def test_resume_without_a_run(make_options):
    with pytest.raises(ValueError, match=r"nothing to resume: .*run/checkpoints holds no checkp"):
        fit(make_options(resume=True))


def test_resume_on_other_data_is_noted(make_options, tmp_path, capsys):
    fit(make_options(steps=1))
    other = tmp_path / "other.npz"
    np.savez(other, images=np.zeros((4, 64, 64, 3), np.uint8))
    fit(make_options(steps=2, resume=True, data=other))
    assert "note: it was trained on 10 images from images.npz" in capsys.readouterr().out


@pytest.mark.parametrize("generator_batch", ["same_latents", "new_latents"])
def test_resumed_run_of_several_discriminator_steps(make_options, tmp_path, generator_batch):
    spec = GREY.replace(discriminator_steps=3, generator_batch=generator_batch)
    whole = fit(make_options(spec=spec, out=tmp_path / "whole", steps=9))
    fit(make_options(spec=spec, steps=4))
    resumed = fit(make_options(spec=spec, steps=9, resume=True))
    assert [step for step, _, _ in resumed] == list(range(4, 9))
    for (_, *inputs), (_, *expected) in zip(resumed, whole[4:], strict=True):
        for array, other in zip(inputs, expected, strict=True):
            np.testing.assert_array_equal(array, other)
    assert loss_rows(make_options().out) == loss_rows(tmp_path / "whole")


def test_resume_with_another_order_of_a_step_names_it(make_options):
    fit(make_options(steps=1))
    for field, value, message in (
        ("discriminator_steps", 2, "discriminator_steps: 1 in the checkpoint, 2 asked for"),
        ("generator_batch", "new_latents", "generator_batch: same_images in the checkpoint, new_"),
    ):
        with pytest.raises(CheckpointError, match=message):
            fit(make_options(resume=True, spec=SPEC.replace(**{field: value})))


# --- the quality of the samples --------------------------------------------------------------


def quality_rows(out):
    with open(out / "quality.csv", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("spec", [SPEC, GREY], ids=["colour", "grey"])
def test_quality_is_the_distance_of_each_grid(make_options, spec, capsys):
    options = make_options(spec=spec)
    run = open_run(options, device="cpu", versions={})
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
        expected = sliced_wasserstein_distance(
            real,
            images[int(completed)][:10],
            spec.image_range,
            patches_per_image=64,
            directions=128,
        ).average
        assert float(distance) == expected > 10
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
    run = open_run(options, device="cpu", versions={})
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


# --- stopping --------------------------------------------------------------------------------


def test_interrupt_finishes_the_step_and_saves_it(make_options):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"after step 14 of 25; .*--resume --out"):
        fit(make_options(), interrupt_at(13))
    assert signal.getsignal(signal.SIGINT) is before
    out = make_options().out
    assert names(out / "checkpoints")[-1] == "step_000014.safetensors"
    assert names(out / "samples")[-1] == "step_000014.png"
    assert loss_rows(out)[-1][0] == "14"
    assert (out / "losses.png").exists()
    assert fit(make_options(resume=True))[0][0] == 14


def test_interrupt_at_the_last_step_is_a_complete_run(make_options):
    fit(make_options(), interrupt_at(24))
    assert names(make_options().out / "checkpoints")[-1] == "step_000025.safetensors"


def test_interrupt_after_the_record_waits_for_the_next_step(make_options):
    options = make_options()
    run = open_run(options, device="cpu", versions={})
    state = FakeState(options, None)
    saved = []

    def train():
        with run:
            for step in run.remaining_steps():
                run.record(step, state.step(*run.inputs(step)))
                if run.checkpoint_due(step):
                    saved.append(step)
                if step == 3:  # too late for this step's question: the next one is the last
                    signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train()
    assert saved == [4]


def test_second_interrupt_stops_at_once(make_options):
    def during(step, metrics):
        if step == 12:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return metrics

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        fit(make_options(), during)
    assert signal.getsignal(signal.SIGINT) is before
    assert names(make_options().out / "checkpoints") == ["step_000010.safetensors"]


@pytest.mark.parametrize("value", [np.float32("nan"), np.float32("inf")])
def test_loss_that_is_not_finite_stops_the_run(make_options, value):
    def during(step, metrics):
        return metrics | ({"generator_loss": value} if step == 12 else {})

    with pytest.raises(NonFiniteError, match=f"generator_loss is {value} after step 13"):
        fit(make_options(), during)
    out = make_options().out
    assert names(out / "checkpoints") == ["step_000010.safetensors"]
    assert loss_rows(out)[-1][0] == "12"


def test_loss_that_is_not_finite_is_found_before_its_checkpoint(make_options):
    def during(step, metrics):
        return metrics | ({"generator_loss": float("nan")} if step == 14 else {})

    with pytest.raises(NonFiniteError):
        fit(make_options(checkpoint_every=3), during)
    assert names(make_options().out / "checkpoints")[-1] == "step_000012.safetensors"


def test_shared_needs_no_framework():
    program = (
        "import sys, shared.run.training; "
        "print(sorted({'torch', 'tensorflow', 'keras', 'jax', 'flax', 'optax'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


# --- the display -----------------------------------------------------------------------------


def test_without_a_terminal_lines_are_few(make_options, capsys):
    fit(make_options())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert len(lines) == 1
    assert lines[0].startswith("step 25/25  D ")
    assert "img/s" in lines[0]
    assert "  SWD " in lines[0]


def test_terminal_shows_a_bar(make_options, monkeypatch, capsys):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.delenv("CI", raising=False)
    console = Console(file=terminal, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    monkeypatch.setattr(run_display, "Console", lambda: console)
    fit(make_options())
    printed = terminal.getvalue()
    assert "25/25" in printed
    assert "step 25/25" not in capsys.readouterr().out
    assert "img/s" in printed
    assert "━" in printed


def test_speed_counts_the_real_images_of_every_update(make_options, monkeypatch):
    received = []

    def display(*given):
        received.append(given[:3])
        return run_display.Display(*given)

    monkeypatch.setattr(training, "Display", display)
    spec = SPEC.replace(discriminator_steps=3, generator_batch="new_latents")
    fit(make_options(spec=spec))
    assert received == [(0, 25, 6)]


# --- the pictures ----------------------------------------------------------------------------


def test_grid_places_every_pixel():
    images = np.linspace(-1, 1, 3 * 4 * 5 * 3).reshape(3, 4, 5, 3)
    grid = image_grid(images, (-1.0, 1.0), columns=2)
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
    row = image_grid(values, (0.0, 1.0))[2, 2:-2, 0]
    assert row.tolist() == [0, 0, 128, 255, 255, 0]


def test_grid_of_fewer_images_than_columns_is_as_wide_as_they_are():
    assert image_grid(np.zeros((3, 4, 4, 1)), (-1.0, 1.0), columns=8).shape == (8, 20, 1)


@pytest.mark.parametrize("shape", [(4, 4, 3), (0, 4, 4, 3), (2, 4, 4, 2)])
def test_grid_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"images of shape \[batch, height, width, 1 or 3\]"):
        image_grid(np.zeros(shape), (-1.0, 1.0))
    with pytest.raises(ValueError, match="at least one column"):
        image_grid(np.zeros((1, 4, 4, 3)), (-1.0, 1.0), columns=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_the_pixels(tmp_path, channels):
    pixels = np.arange(4 * 5 * channels, dtype=np.uint8).reshape(4, 5, channels)
    save_png(tmp_path / "a.png", pixels)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)
    assert os.listdir(tmp_path) == ["a.png"]


def test_loss_plot_is_a_picture_and_needs_a_step(tmp_path):
    losses = tmp_path / "losses.csv"
    losses.write_text("step,discriminator_loss,generator_loss\n")
    with pytest.raises(ValueError, match="holds no losses"):
        plot_losses(losses, tmp_path / "losses.png")
    losses.write_text("step,discriminator_loss,generator_loss\n1,0.5,0.7\n")
    plot_losses(losses, tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as image:
        assert image.size == (960, 540)


def test_moving_average_is_centred_and_true_at_the_ends():
    values = np.array([1.0, 2.0, 6.0, 4.0, 5.0])
    np.testing.assert_allclose(moving_average(values, 3), [1.5, 3.0, 4.0, 5.0, 4.5], rtol=1e-15)
    np.testing.assert_array_equal(moving_average(values, 1), values)
