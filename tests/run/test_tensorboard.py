"""Event files: what tensorboard's own reader finds in them is what the run wrote elsewhere."""

import csv
import importlib
import importlib.util
import io
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shared.interface import METRIC_NAMES, Implementation, MissingFrameworkError
from shared.run.command import run_training
from shared.run.folder import RunFolder, RunRecords
from shared.run.options import TrainingOptions
from shared.run.training import TrainingRun
from shared.spec import SYSTEMS, SystemSpec, streams
from tests import ROOT
from tests.tiers import SLOW_IN_TF_AND_JAX

COLUMNS = {
    "d_loss": "discriminator_loss",
    "d_loss_real": "discriminator_loss_real",
    "d_loss_fake": "discriminator_loss_fake",
    "g_loss": "generator_loss",
}
SYSTEM = {
    "colour": SYSTEMS["dcgan64"].replace(width=1, latent_dim=3, batch_size=4),
    "grey": SYSTEMS["conv28"].replace(width=1, latent_dim=3, batch_size=4),
}

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None,
    reason="needs tensorboard: pip install -c constraints.txt -e '.[tensorboard]'",
)


def fit(
    out: Path,
    *,
    steps: int,
    spec: SystemSpec = SYSTEM["grey"],
    resume: bool = False,
    crash_at: int | None = None,
    tensorboard: bool = True,
) -> None:
    """Train a stand-in for a framework whose losses and samples are functions of the step."""
    options = TrainingOptions(
        implementation="jax",
        spec=spec,
        data=None,
        steps=steps,
        seed=7,
        out=out,
        resume=resume,
        device="cpu",
        dtype="float32",
        checkpoint_every=10,
        sample_every=8,
        tensorboard=tensorboard,
    )
    arrays = {
        name: array.astype("float32") if array.shape else array
        for name, array in streams.initial_state(spec, 0).items()
    }
    run = TrainingRun(options, device="cpu", versions={})
    with run:
        if run.restored is None:
            run.save_samples(-1, samples(spec, 0))
        for step in run.remaining_steps():
            if step == crash_at:
                raise RuntimeError("crash")
            run.record(step, {name: (i + 1) / (step + 3) for i, name in enumerate(METRIC_NAMES)})
            if run.sample_due(step):
                run.save_samples(step, samples(spec, step + 1))
            if run.checkpoint_due(step):
                run.save_checkpoint(step, arrays)


def samples(spec: SystemSpec, completed: int) -> np.ndarray:
    draw = np.random.default_rng(completed)
    return draw.uniform(*spec.image_range, (64, *spec.image_shape))


def accumulated(folder: Path) -> Any:
    """Return what tensorboard's reader makes of a folder, without leaving anything out."""
    module = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    accumulator = module.EventAccumulator(str(folder), dict.fromkeys(("scalars", "images"), 0))
    return accumulator.Reload()


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def check_against_the_tables(out: Path) -> None:
    """Compare every scalar and every picture of a run's events with its other files."""
    events, losses, quality = (
        accumulated(out),
        table(out / "losses.csv"),
        table(out / "quality.csv"),
    )
    assert sorted(events.Tags()["scalars"]) == sorted([*COLUMNS, "swd"])
    columns = [(tag, losses, name) for tag, name in COLUMNS.items()]
    for tag, rows, name in [*columns, ("swd", quality, "swd")]:
        scalars = events.Scalars(tag)
        assert [scalar.step for scalar in scalars] == [int(row["step"]) for row in rows]
        expected = np.array([row[name] for row in rows], np.float64).astype(np.float32)
        np.testing.assert_array_equal(np.array([s.value for s in scalars], np.float32), expected)
    assert events.Tags()["images"] == ["samples"]
    images = events.Images("samples")
    assert [image.step for image in images] == [int(row["step"]) for row in quality]
    for image in images:
        with (
            Image.open(io.BytesIO(image.encoded_image_string)) as recorded,
            Image.open(RunFolder(out).sample(image.step)) as saved,
        ):
            assert (image.width, image.height) == saved.size
            np.testing.assert_array_equal(np.asarray(recorded), np.asarray(saved))


def shown_steps(out: Path, tag: str) -> list[int]:
    """Return the steps of a tag that TensorBoard shows."""
    events = accumulated(out)
    kinds = {"images": events.Images, "scalars": events.Scalars}
    return [e.step for kind, read in kinds.items() if tag in events.Tags()[kind] for e in read(tag)]


def event_files(out: Path) -> list[Path]:
    return sorted(out.glob("events.out.tfevents.*.gan"))


@needs_tensorboard
@pytest.mark.parametrize("kind", SYSTEM)
def test_events_equal_the_tables_and_the_pictures(tmp_path: Path, kind: str) -> None:
    fit(tmp_path, steps=25, spec=SYSTEM[kind])
    check_against_the_tables(tmp_path)
    assert shown_steps(tmp_path, "d_loss") == list(range(1, 26))
    assert shown_steps(tmp_path, "samples") == [0, 8, 16, 24, 25]


@pytest.mark.slow
@needs_tensorboard
def test_wall_times_are_those_of_the_steps(tmp_path: Path) -> None:
    """They are read ten at a time, and still each has its own."""
    fit(tmp_path, steps=10)
    times = [scalar.wall_time for scalar in accumulated(tmp_path).Scalars("g_loss")]
    seconds = [float(row["seconds"]) for row in table(tmp_path / "losses.csv")]
    # losses.csv has three decimals; a double of this size a quarter of a microsecond.
    np.testing.assert_allclose(np.diff(times), np.diff(seconds), rtol=0, atol=1.01e-3)
    assert len(set(times)) == 10


@pytest.mark.slow
@needs_tensorboard
def test_resumed_run_has_no_step_twice(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="crash"):
        fit(out, steps=25, crash_at=18)
    # The last checkpoint is of step 10; losses were flushed to 10, samples taken at 16.
    assert shown_steps(out, "samples") == [0, 8, 16]
    fit(out, steps=25, resume=True)
    check_against_the_tables(out)
    assert shown_steps(out, "d_loss") == list(range(1, 26))
    assert shown_steps(out, "samples") == [0, 8, 16, 24, 25]
    fit(out, steps=31, resume=True)
    check_against_the_tables(out)
    assert shown_steps(out, "d_loss") == list(range(1, 32))
    assert [path.name for path in event_files(out)] == [
        f"events.out.tfevents.000000000{n}.gan" for n in (1, 2, 3)
    ]


@pytest.mark.slow
@needs_tensorboard
def test_a_tensorboard_that_watches_a_resume_shows_no_step_twice(tmp_path: Path) -> None:
    """Its reader, which has steps in memory that the resumed run makes again."""
    module = "tensorboard.backend.event_processing.plugin_event_accumulator"
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="crash"):
        fit(out, steps=25, crash_at=18)
    watching = importlib.import_module(module).EventAccumulator(str(out), {"tensors": 0}).Reload()
    assert [tensor.step for tensor in watching.Tensors("swd")] == [0, 8, 16]  # resumes from 10
    fit(out, steps=25, resume=True)
    watching.Reload()
    for tag in ("swd", "samples"):
        assert [tensor.step for tensor in watching.Tensors(tag)] == [0, 8, 16, 24, 25], tag
    assert [tensor.step for tensor in watching.Tensors("d_loss")] == list(range(1, 26))


@pytest.mark.slow
@needs_tensorboard
@pytest.mark.parametrize("damage", ["cut by 1", "cut by 5", "cut by 60", "zeros"])
def test_a_file_that_a_crash_damaged_costs_the_steps_after_the_damage_alone(
    tmp_path: Path, damage: str
) -> None:
    fit(tmp_path, steps=10)
    (path,) = event_files(tmp_path)
    content = path.read_bytes()
    lost = bytes(60) if damage == "zeros" else b""
    path.write_bytes(content[: -int(damage.split()[-1])] if not lost else content[:-60] + lost)
    fit(tmp_path, steps=12, resume=True)
    shown = shown_steps(tmp_path, "d_loss")
    assert shown == sorted(set(shown))
    assert set(range(1, 9)) | {11, 12} <= set(shown)


@pytest.mark.slow
@needs_tensorboard
def test_tensorboard_from_the_resume_on(tmp_path: Path) -> None:
    fit(tmp_path, steps=10, tensorboard=False)
    assert event_files(tmp_path) == []
    fit(tmp_path, steps=20, resume=True)
    assert shown_steps(tmp_path, "d_loss") == list(range(11, 21))


@needs_tensorboard
def test_distance_that_is_none_is_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    picture = folder.sample(1)
    Image.new("L", (4, 3)).save(picture)
    records = RunRecords(folder, 0, tensorboard=True)
    records.add_samples(1, picture, float("nan"))
    records.close()
    assert shown_steps(folder.path, "swd") == []
    assert shown_steps(folder.path, "samples") == [1]


@needs_tensorboard
def test_what_is_flushed_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    Image.new("L", (4, 3)).save(folder.sample(1))
    records = RunRecords(folder, 0, tensorboard=True)
    records.add_losses(1, dict.fromkeys(METRIC_NAMES, 0.5), 0.1)
    records.flush()
    assert shown_steps(folder.path, "d_loss") == [1]
    records.add_samples(1, folder.sample(1), 3.0)
    assert shown_steps(folder.path, "swd") == [1]
    records.close()


@pytest.mark.slow
@needs_tensorboard
def test_writing_loads_no_framework(tmp_path: Path) -> None:
    """tensorboard's EventFileWriter would load TensorFlow and with it Keras and JAX."""
    program = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from tests.run.test_tensorboard import fit
        fit(Path({str(tmp_path / "run")!r}), steps=3)
        frameworks = {{"torch", "tensorflow", "keras", "jax", "flax", "optax"}}
        print(sorted(frameworks & set(sys.modules)))
    """)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""


def test_missing_tensorboard_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    out = tmp_path / "run"

    def train(options: TrainingOptions) -> None:
        TrainingRun(options, device="cpu", versions={})

    assert run_training("jax", train, ["--tensorboard", "--out", str(out)]) == 2
    assert capsys.readouterr().err == (
        "python -m jax_impl.train: error: --tensorboard needs tensorboard, which is not installed; "
        "install it with: pip install -c constraints.txt -e '.[tensorboard]'\n"
    )
    assert not out.exists()
    with pytest.raises(MissingFrameworkError):
        fit(out, steps=1)
    fit(out, steps=1, tensorboard=False)


@pytest.mark.slow
@needs_tensorboard
@SLOW_IN_TF_AND_JAX
def test_every_framework_records_the_same_tags(
    implementation: Implementation, tmp_path: Path
) -> None:
    train = importlib.import_module(f"{implementation.name}_impl.train").main
    arguments = ["--system", "mlp28", "--width", "4", "--batch-size", "4", "--tensorboard"]
    out = tmp_path / implementation.name
    assert train([*arguments, "--steps", "3", "--out", str(out)]) == 0
    assert train([*arguments, "--steps", "5", "--out", str(out), "--resume"]) == 0
    check_against_the_tables(out)
    assert shown_steps(out, "g_loss") == [1, 2, 3, 4, 5]
    assert shown_steps(out, "samples") == [0, 3, 5]
