"""`python -m X.train` of all three implementations, on real digits and on bad input."""

import csv
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.data.dataset import Batches, load_dataset, to_pixels
from shared.files.checkpoint import read_checkpoint
from shared.interface import Implementation
from shared.reference.adapter import ReferenceImplementation
from shared.reference.comparison import state_differences
from shared.run.pictures import tiles
from shared.run.training import SAMPLE_COUNT
from shared.spec import SystemSpec
from shared.spec.streams import latents
from tests import exit_code
from tests.conftest import installed_implementations
from tests.tiers import EAGER_TENSORFLOW, SLOW_IN_TF_AND_JAX, one_in

# Two steps of a system of width 4: seconds, most of them compilation.
SMALL = ("--width", "4", "--batch-size", "4", "--steps", "2")

# Relative L2 of the worst array, and relative errors of the losses, after three float64 steps at a
# rate of 0.05: measured at most 5e-13.
RUN_BOUND = 1e-10

SEVERAL_UPDATES = ("--d-steps", "3", "--generator-batch", "new-latents")

Train = Callable[..., int]


@pytest.fixture
def train(implementation: Implementation) -> Train:
    main = importlib.import_module(f"{implementation.name}_impl.train").main
    return lambda *arguments: main([str(a) for a in arguments])


def losses(out: Path) -> list[dict[str, float]]:
    with open(out / "losses.csv", newline="") as file:
        return [
            {k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)
        ]


@SLOW_IN_TF_AND_JAX
def test_a_run_leaves_pictures_losses_and_a_checkpoint(train: Train, tmp_path: Path) -> None:
    out = tmp_path / "a run"
    assert train(*SMALL, "--out", out, "--loss", "lsgan") == 0
    assert [row["step"] for row in losses(out)] == [1, 2]
    assert all(np.isfinite(list(row.values())).all() for row in losses(out))
    for name in ("step_000000.png", "step_000002.png"):
        with Image.open(out / "samples" / name) as image:
            picture = np.asarray(image)
        # 8x8 images of 64 pixels with gutters of 2.
        assert picture.shape == (530, 530, 3)
        assert picture[2:66, 2:66].std() > 0
    with Image.open(out / "losses.png") as plot:
        assert min(plot.size) > 100
    checkpoint = read_checkpoint(out / "checkpoints" / "step_000002.safetensors")
    assert checkpoint.progress["step"] == 2
    assert checkpoint.arrays["generator_optimizer/step"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [("--image-size", "32"), ("--system", "mlp28", *SEVERAL_UPDATES)],
    ids=["dcgan64", "mlp28, k = 3"],
)
def test_the_same_seed_starts_the_same_run_in_every_framework(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """float64, five steps: the losses agree to rounding; another seed's do not."""
    rows = {}
    for name in (one.name for one in installed_implementations(at_least=2)):
        main = importlib.import_module(f"{name}_impl.train").main
        out = tmp_path / name
        arguments = ["--width", "4", "--batch-size", "4", "--steps", "5", "--dtype", "float64"]
        assert main([*arguments, *options, "--seed", "7", "--out", str(out)]) == 0
        rows[name] = np.array([list(row.values()) for row in losses(out)])
    first = next(iter(rows.values()))
    assert first.shape == (5, 5)
    for name, values in rows.items():
        # Measured 1.5e-12 at most: some gradients are as small as Adam's epsilon. A wrong epsilon
        # is off by 1e-3 after two steps and by 0.1 after five.
        assert np.abs(values / first - 1).max() < 1e-11, name


@EAGER_TENSORFLOW
@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize(
    "system",
    one_in(
        3,
        [
            ["--system", "conv28", *SEVERAL_UPDATES],
            ["--image-size", "32"],
            ["--system", "mlp28", "--loss", "minimax"],
        ],
    ),
    ids=["conv28, k = 3", "dcgan64", "mlp28"],
)
def test_a_resumed_run_is_the_unbroken_run(train: Train, tmp_path: Path, system: list[str]) -> None:
    options = ("--width", "2", "--batch-size", "2", "--seed", "3", "--dtype", "float64", *system)
    assert train(*options, "--steps", "4", "--out", tmp_path / "whole") == 0
    assert train(*options, "--steps", "2", "--out", tmp_path / "halves") == 0
    assert train(*options, "--steps", "4", "--out", tmp_path / "halves", "--resume") == 0
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole")
    whole, halves = (
        read_checkpoint(tmp_path / name / "checkpoints" / "step_000004.safetensors").arrays
        for name in ("whole", "halves")
    )
    for name, array in whole.items():
        assert np.array_equal(halves[name], array), name


def test_every_step_of_a_run_is_the_references(
    implementation: Implementation, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed, dtype, inputs, losses, samples, checkpoints and going on, each held to NumPy's run."""
    out = tmp_path / "run"
    options = ("--image-size", "32", "--width", "2", "--batch-size", "4", "--seed", "3")
    options += ("--dtype", "float64", "--out", out)
    # A rate of 0.2: the samples, by running statistics that have hardly moved, show each step.
    options += ("--learning-rate", "0.2", "--sample-every", "1", "--checkpoint-every", "1")
    assert train(*options, "--steps", "2") == 0
    with monkeypatch.context() as changed:  # a run that goes on draws no weights to replace them
        changed.delattr(f"{implementation.name}_impl.checkpoint.initial_state")
        assert train(*options, "--steps", "3", "--resume") == 0
    spec = read_checkpoint(out / "checkpoints" / "step_000003.safetensors").spec
    steps = list(reference_run(spec, 3, 3))
    for i, (truth, metrics, grid) in enumerate(steps):
        with Image.open(out / "samples" / f"step_{i:06}.png") as image:
            # One level: where the float is half-way between two.
            assert np.abs(np.asarray(image, np.int64) - grid).max() <= 1, i
        if i == 0:
            continue
        assert np.abs(grid.astype(np.int64) - steps[i - 1][2]).max() > 2, "the samples show nothing"
        ours = read_checkpoint(out / "checkpoints" / f"step_{i:06}.safetensors").arrays
        differences = state_differences(spec, ours, truth)
        assert max(differences.values()) < RUN_BOUND, i
        row = losses(out)[i - 1]
        for name, value in metrics.items():
            assert abs(row[name] / value - 1) < RUN_BOUND, (i, name)


def reference_run(
    spec: SystemSpec, seed: int, steps: int
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, float], np.ndarray]]:
    """Yield the state, the losses and the grid of samples before and after each step."""
    reference = ReferenceImplementation()
    state = reference.create(spec, seed=seed)
    batches = Batches(load_dataset(None, spec).images, spec, seed, "float64")
    sample_latents = latents(spec, seed, 0, SAMPLE_COUNT, purpose="sample_grid")
    metrics: dict[str, float] = {}
    for step in range(steps + 1):
        images = reference.generate(state, sample_latents)
        yield reference.export_state(state), metrics, tiles(to_pixels(images, spec.image_range))
        drawn = latents(spec, seed, step, spec.batch_size * spec.latent_batches)
        metrics = reference.train_step(state, batches.images(step), drawn)


def write_bad_images(folder: Path) -> Path:
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return folder


def write_truncated_idx(folder: Path) -> Path:
    path = folder / "images-idx3-ubyte.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03")
    return path


def write_wrong_npz(folder: Path) -> Path:
    np.savez(folder / "wrong.npz", images=np.zeros((3, 64), np.int64))
    return folder / "wrong.npz"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda d: ["--data", d / "nothing"], "nothing"),
        (lambda d: ["--data", d], "no image"),
        (lambda d: ["--data", write_bad_images(d / "bad")], "bad"),
        (lambda d: ["--data", write_truncated_idx(d)], "images-idx3-ubyte.gz"),
        (lambda d: ["--data", write_wrong_npz(d)], "wrong.npz"),
        (lambda d: ["--batch-size", "5000"], "5000"),
        (lambda d: ["--d-steps", "0"], "--d-steps: must be at least 1, received 0"),
        (lambda d: ["--steps", "0"], "--steps: must be at least 1"),
        (lambda d: ["--seed", "-3"], "--seed: must be at least 0"),
        (lambda d: ["--width", "0"], "--width: must be"),
        (lambda d: ["--resume"], "checkpoint"),
    ],
    ids=[
        "missing folder",
        "empty folder",
        "only bad images",
        "truncated gz",
        "npz of the wrong dtype",
        "batch larger than the data",
        "no discriminator steps",
        "no steps",
        "negative seed",
        "no width",
        "nothing to resume",
    ],
)
def test_bad_input_is_one_clear_line(
    train: Train,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    arguments: Callable[[Path], list],
    message: str,
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    out = tmp_path / "out"
    assert exit_code(train, *SMALL, "--out", out, *arguments(data)) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "Traceback" not in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        (["--system", "dcgan65"], "dcgan64"),
        (["--loss", "hinge"], "lsgan"),
        (["--device", "tpu"], "gpu"),
        (["--generator-batch", "fresh"], "new-latents"),
    ],
)
def test_an_unknown_choice_lists_the_known_ones(
    train: Train, capsys: pytest.CaptureFixture, arguments: list, known: str
) -> None:
    with pytest.raises(SystemExit) as raised:
        train(*arguments)
    assert raised.value.code == 2
    error = capsys.readouterr().err
    assert "invalid choice" in error
    assert known in error


def test_a_gpu_that_is_not_there_is_an_error(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert train(*SMALL, "--out", tmp_path / "run", "--device", "gpu") == 2
    assert "device gpu was asked for, but" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@SLOW_IN_TF_AND_JAX
def test_a_folder_that_holds_a_run_is_left_alone(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    assert train(*SMALL, "--out", out) == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert train(*SMALL, "--out", out) == 2
    assert "--resume" in capsys.readouterr().err
    assert train("--width", "6", "--batch-size", "4", "--steps", "3", "--out", out, "--resume") == 2
    assert "width: 4 in the checkpoint, 6 asked for" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
