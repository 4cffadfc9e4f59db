"""A run's folder, its inputs and its display, with NumPy as the framework."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from shared.files.checkpoint import read_checkpoint
from shared.interface import METRIC_NAMES
from shared.run import display as run_display
from shared.run import training
from shared.run.pictures import save_png
from shared.run.training import TrainingRun
from shared.spec import streams
from tests import ROOT
from tests.run.stand_in_run import GREY, SPEC, fit, loss_rows, names

pytestmark = pytest.mark.usefixtures("quick_sample_quality")

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
    last = read_checkpoint(out / "checkpoints" / checkpoints[-1])
    assert last.spec == options.spec
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
    run = TrainingRun(make_options(dtype=dtype), device="cpu", versions={})
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
    run = TrainingRun(make_options(spec=spec), device="cpu", versions={})
    single = make_options(spec=system.replace(generator_batch="same_images"))
    batches = TrainingRun(single, device="cpu", versions={})
    for step in (4, 0):  # five batches an epoch: step 4 begins in the third
        real_images, latents = run.inputs(step)
        each = [batches.inputs(3 * step + i)[0] for i in range(3)]
        np.testing.assert_array_equal(real_images, np.concatenate(each))
        count = 2 * (4 if generator_batch == "new_latents" else 3)
        drawn = streams.latents(spec, 7, step, count).astype("float32")
        np.testing.assert_array_equal(latents, drawn)
        assert spec.batch_size_of(len(real_images), len(latents)) == 2


def test_announcement_says_what_a_step_is(make_options, capsys):
    TrainingRun(make_options(), device="cpu", versions={})
    assert "each step" not in capsys.readouterr().out
    spec = GREY.replace(discriminator_steps=5, generator_batch="new_latents")
    TrainingRun(make_options(spec=spec), device="cpu", versions={})
    printed = capsys.readouterr().out
    assert "each step      --d-steps 5, --generator-batch new-latents\n" in printed
    assert "learning rates generator 0.001, discriminator 0.0002\n" in printed


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
    TrainingRun(make_options(data=folder), device="cpu", versions={})
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
    TrainingRun(options, device="cpu", versions={})
    assert not options.out.exists()


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
    assert "  SWD " not in lines[0]  # of the grid before, which is not the run's result


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
