"""`python -m shared.evaluate`: the figures, the choice of images and data, and bad input."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from shared.files.checkpoint import write_checkpoint
from shared.interface import Implementation, MissingFrameworkError
from shared.quality import fidelity
from shared.quality.fidelity import FidelityError
from shared.quality.metrics import sliced_wasserstein_distance
from shared.run.folder import RunFolder
from shared.spec import SYSTEMS, SystemSpec
from shared.spec.streams import initial_state, latents
from shared.studies import evaluate
from tests.conftest import installed_implementations

SEED = 3
SPEC = SYSTEMS["dcgan64"].replace(width=4, batch_size=4)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def trained_arrays(spec: SystemSpec = SPEC, dtype: str = "float32") -> dict[str, np.ndarray]:
    """Weights that are not the start's, with enough contrast for pictures in every system."""
    arrays = initial_state(spec, SEED + 1)
    for name, array in arrays.items():
        if name.startswith("generator/") and name.endswith("/kernel"):
            array *= 4
    return {n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in arrays.items()}


def write_run(
    folder: Path,
    arrays: dict[str, np.ndarray] | None = None,
    *,
    spec: SystemSpec = SPEC,
    step: int = 7,
    data: str | None = None,
    writer: str = "jax",
) -> Path:
    run = RunFolder(folder)
    run.create()
    progress = {"step": step, "seed": SEED, "implementation": writer, "dataset": "some photos"}
    arrays = trained_arrays(spec) if arrays is None else arrays
    write_checkpoint(run.checkpoint(step), arrays, spec, progress=progress)
    run.add_session(spec.to_dict(), {"start": 0, "options": {"data": data}})
    return folder


def write_data(path: Path, count: int = 20, size: int = 64) -> Path:
    images = draw(1).integers(0, 256, (count, size // 8, size // 8, 3), np.uint8)
    np.savez(path, images=images.repeat(8, 1).repeat(8, 2))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "images.npz")


def figures(out: Path, *arguments: object) -> dict[str, Any]:
    """Run the command, which has to succeed, and return its JSON."""
    arguments = (*arguments, "--json", out / "figures.json")
    assert evaluate.main([str(a) for a in arguments]) == 0
    return json.loads((out / "figures.json").read_text())


class Stub:
    """An implementation that generates whatever `make` returns for a state and latents."""

    name = "stub"

    def __init__(self, make: Callable[[str, np.ndarray], np.ndarray]) -> None:
        self._make = make

    def create(self, spec: SystemSpec, *, seed: int, dtype: str) -> dict[str, str]:
        return {"is": "before"}

    def import_state(self, state: dict[str, str], arrays: dict[str, np.ndarray]) -> None:
        state["is"] = "after"

    def generate(self, state: dict[str, str], drawn: np.ndarray) -> np.ndarray:
        return self._make(state["is"], drawn)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the command generate with a stub."""

    def install(make: Callable[[str, np.ndarray], np.ndarray]) -> None:
        monkeypatch.setattr(evaluate, "choose_implementation", lambda *_: Stub(make))

    return install


# --- the figures -----------------------------------------------------------------------------


def test_the_table_has_every_row_and_level(
    tmp_path: Path,
    data: Path,
    implementation: Implementation,
    capsys: pytest.CaptureFixture,
) -> None:
    run = write_run(tmp_path / "run", writer=implementation.name)
    result = figures(tmp_path, run, "--data", data, "--samples", 8)
    printed = capsys.readouterr().out
    assert f"generated  by {implementation.name}, float32, seed 0" in printed
    assert "it was trained on some photos" in printed
    assert "images 64 px 32 px 16 px average" in " ".join(printed.split())
    rows = result["sliced_wasserstein_x1000"]
    assert list(rows) == ["before training", "after 7 steps", "real against real"]
    for name, row in rows.items():
        assert row["images"] == 8
        assert list(row["by_size"]) == ["64", "32", "16"]
        assert row["average"] == pytest.approx(np.mean(list(row["by_size"].values())))
        line = next(line for line in printed.splitlines() if line.startswith(name))
        assert line.split()[-1] == f"{row['average']:.1f}"
    assert result["framework"] == implementation.name
    assert result["step"] == 7


def test_every_framework_gives_the_same_figures(tmp_path: Path, data: Path) -> None:
    run = write_run(tmp_path / "run")
    averages = []
    for one in installed_implementations(at_least=2):
        result = figures(tmp_path, run, "--data", data, "--samples", 8, "--framework", one.name)
        rows = result["sliced_wasserstein_x1000"]
        # Before training the images are grey to a thousandth, and rounding to 8 bits decides.
        averages.append([rows["after 7 steps"]["average"], rows["real against real"]["average"]])
    # Measured 0: 1e-6 of a float32 image seldom moves a pixel of 8 bits. Another seed is 10 away.
    assert np.ptp(averages, axis=0).max() < 0.05


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_can_be_evaluated(tmp_path: Path, system: str) -> None:
    spec = SYSTEMS[system].replace(width=4)
    run = write_run(tmp_path / "run", spec=spec)
    data = write_data(tmp_path / "images.npz", size=64)
    rows = figures(tmp_path, run, "--data", data, "--samples", 6)["sliced_wasserstein_x1000"]
    sizes = {64: ["64", "32", "16"], 28: ["28", "14"]}[spec.image_size]
    for row in rows.values():
        assert list(row["by_size"]) == sizes
        assert all(math.isfinite(value) for value in row["by_size"].values())


def test_a_checkpoint_of_the_start_is_the_row_before_training(tmp_path: Path, data: Path) -> None:
    """So the first row is made with the run's own spec and seed, through the same stream."""
    start = {
        name: array.astype(np.float32) if array.dtype.kind == "f" else array
        for name, array in initial_state(SPEC, SEED).items()
    }
    run = write_run(tmp_path / "run", start)
    rows = figures(tmp_path, run, "--data", data, "--samples", 4)["sliced_wasserstein_x1000"]
    assert rows["before training"] == rows["after 7 steps"]


def test_float64_checkpoints_are_generated_in_float64(
    tmp_path: Path, data: Path, implementation: Implementation, capsys: pytest.CaptureFixture
) -> None:
    run = write_run(tmp_path / "run", trained_arrays(dtype="float64"))
    figures(tmp_path, run, "--data", data, "--samples", 4, "--framework", implementation.name)
    assert f"by {implementation.name}, float64" in capsys.readouterr().out


def test_perfect_samples_are_as_near_as_real_images(
    tmp_path: Path, stub: Callable[..., None]
) -> None:
    """Real images of the same distribution instead of samples: the floor; noise is far above."""
    data = write_data(tmp_path / "images.npz", count=128)
    random = draw(9)

    def make(state: str, drawn: np.ndarray) -> np.ndarray:
        if state == "before":
            return random.uniform(-1, 1, (len(drawn), 64, 64, 3))
        blocks = random.integers(0, 256, (len(drawn), 8, 8, 3))
        return blocks.repeat(8, 1).repeat(8, 2) / 127.5 - 1

    stub(make)
    run = write_run(tmp_path / "run")
    rows = figures(tmp_path, run, "--data", data, "--samples", 64)["sliced_wasserstein_x1000"]
    before, after, floor = (row["average"] for row in rows.values())
    # Measured 25.9 and 27.3, with 64 images a side; noise 59.5.
    assert after == pytest.approx(floor, rel=0.2)
    assert before > 1.8 * floor


def test_the_rows_are_the_metric_of_the_saved_samples(tmp_path: Path, data: Path) -> None:
    run = write_run(tmp_path / "run")
    saved = tmp_path / "new" / "samples"
    result = figures(tmp_path, run, "--data", data, "--samples", 20, "--save-samples", saved)
    files = sorted(saved.iterdir())
    assert [file.name for file in files] == [f"sample_{i:06d}.png" for i in range(20)]
    samples = np.stack([np.asarray(Image.open(file)) for file in files])
    # 20 of 20: all of the data, in the order of the seed, which no level depends on in the mean;
    # so it is asked for.
    images = np.load(data)["images"]
    order = evaluate.stream(0, "evaluation/real").permutation(20)
    expected = sliced_wasserstein_distance(images[order], samples, (0, 255))
    row = result["sliced_wasserstein_x1000"]["after 7 steps"]
    assert row["by_size"] == {str(size): value for size, value in expected.by_size.items()}


def test_samples_depend_on_seed_and_index_alone(tmp_path: Path, data: Path) -> None:
    run = write_run(tmp_path / "run")
    pixels = {}
    for name, options in {
        "few": ("--samples", 5),
        "more": ("--samples", 9),
        "other": ("--samples", 5, "--seed", 1),
    }.items():
        figures(tmp_path, run, "--data", data, *options, "--save-samples", tmp_path / name)
        files = sorted((tmp_path / name).iterdir())
        pixels[name] = np.stack([np.asarray(Image.open(file)) for file in files])
    assert np.array_equal(pixels["few"], pixels["more"][:5])
    assert not np.array_equal(pixels["few"], pixels["other"])


def test_latents_are_none_that_training_has_used() -> None:
    drawn: list[np.ndarray] = []

    def make(state: str, batch: np.ndarray) -> np.ndarray:
        drawn.append(batch)
        return np.zeros((len(batch), *SPEC.image_shape))

    evaluate.generate_pixels(Stub(make), {"is": "after"}, SPEC, 64, SEED, "float64")
    for purpose in ("latents", "sample_grid"):
        used = latents(SPEC, SEED, 0, 64, purpose=purpose)
        assert not np.isin(drawn[0], used).any()


def test_more_than_one_batch_has_no_image_twice() -> None:
    spec = SYSTEMS["dcgan64"]

    def make(state: str, drawn: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.tanh(drawn[:, :1, None, None]), (len(drawn), 64, 64, 3))

    pixels = evaluate.generate_pixels(Stub(make), {"is": "after"}, spec, 150, 0, "float32")
    assert pixels.shape == (150, 64, 64, 3)
    # 150 normal numbers in 256 levels: some fall together, whole batches would not.
    assert len(np.unique(pixels[:, 0, 0, 0])) > 75
    assert not np.array_equal(pixels[:64], pixels[64:128])


def test_the_halves_share_no_image_and_the_data_bound_the_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data = write_data(tmp_path / "images.npz", count=21)
    seen: list[evaluate.Pairs] = []
    measure = evaluate.measure
    monkeypatch.setattr(
        evaluate, "measure", lambda pairs, seed: (seen.append(pairs), measure(pairs, seed))[1]
    )
    rows = figures(tmp_path, write_run(tmp_path / "run"), "--data", data)[
        "sliced_wasserstein_x1000"
    ]
    assert [row["images"] for row in rows.values()] == [21, 21, 10]
    first, second = ({image.tobytes() for image in half} for half in seen[0][evaluate.FLOOR])
    assert (len(first), len(second), len(first & second)) == (10, 10, 0)
    assert len({image.tobytes() for image in seen[0]["before training"][0]}) == 21
    printed = capsys.readouterr().out
    assert "21 images a side instead of 1024, the data hold no more" in printed
    assert "fewer images make every distance larger" in printed


def test_it_is_the_same_every_time(tmp_path: Path, data: Path) -> None:
    run = write_run(tmp_path / "run")
    results = [figures(tmp_path, run, "--data", data, "--samples", 8) for _ in range(2)]
    assert results[0] == results[1]


def test_a_collapsed_generator_has_no_distance_but_the_others_do(
    tmp_path: Path, data: Path, stub: Callable[..., None], capsys: pytest.CaptureFixture
) -> None:
    def make(state: str, drawn: np.ndarray) -> np.ndarray:
        images = draw().uniform(-1, 1, (len(drawn), 64, 64, 3))
        return images if state == "before" else np.full_like(images, 0.25)

    stub(make)
    result = figures(tmp_path, write_run(tmp_path / "run"), "--data", data, "--samples", 4)
    rows = result["sliced_wasserstein_x1000"]
    assert "generated images at 64 pixels do not vary" in rows["after 7 steps"]["problem"]
    assert "average" in rows["before training"]
    assert "average" in rows["real against real"]
    assert "note: after 7 steps: the generated images" in capsys.readouterr().out


def test_data_too_few_for_two_halves(
    tmp_path: Path, stub: Callable[..., None], capsys: pytest.CaptureFixture
) -> None:
    stub(lambda state, drawn: draw().uniform(-1, 1, (len(drawn), 64, 64, 3)))
    data = write_data(tmp_path / "images.npz", count=3)
    figures(tmp_path, write_run(tmp_path / "run"), "--data", data)
    assert "note: real against real: 1 images a side" in capsys.readouterr().out


# --- run, data, framework --------------------------------------------------------------------


def test_a_run_of_the_training_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """With its own data, scikit-learn's digits, and its own framework."""
    name = installed_implementations()[0].name
    train = importlib.import_module(f"{name}_impl.train").main
    out = str(tmp_path / "run")
    small = ["--width", "4", "--batch-size", "4", "--steps", "2", "--checkpoint-every", "1"]
    assert train([*small, "--out", out]) == 0
    assert evaluate.main([out, "--samples", "16"]) == 0
    assert evaluate.main([out, "--samples", "16", "--step", "1"]) == 0
    printed = capsys.readouterr().out
    assert "after 2 steps" in printed
    assert "after 1 steps" in printed
    assert f"generated  by {name}, float32" in printed
    assert "data       1,797 scikit-learn digits" in printed
    assert "note" not in printed.split("generated  by")[1]


def test_data_are_those_of_the_session_that_made_the_step(tmp_path: Path, data: Path) -> None:
    run = RunFolder(write_run(tmp_path / "run", data=str(data)))
    run.add_session({}, {"start": 7, "options": {"data": None}})
    assert evaluate.recorded_data(run.path, 7) == data
    assert evaluate.recorded_data(run.path, 8) is None
    assert evaluate.recorded_data(run.path, 0) is None


def test_recorded_data_are_used(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    figures(tmp_path, write_run(tmp_path / "run", data=str(data)), "--samples", 4)
    assert "data       20 images from images.npz" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "{", "{}", '{"sessions": []}', '{"sessions": [3]}', "3"])
def test_a_run_json_that_says_nothing_asks_for_data(
    tmp_path: Path, data: Path, content: str | None, capsys: pytest.CaptureFixture
) -> None:
    run = write_run(tmp_path / "run")
    (run / "run.json").unlink()
    if content is not None:
        (run / "run.json").write_text(content)
    assert evaluate.main([str(run)]) == 2
    assert "does not say what the run was trained on" in capsys.readouterr().err
    figures(tmp_path, run, "--data", data, "--samples", 4)


def test_auto_prefers_the_writer_and_takes_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    absent = {"tf"}

    def load(name: str) -> str:
        asked.append(name)
        if name in absent:
            raise MissingFrameworkError(f"{name} is not installed")
        return name

    monkeypatch.setattr(evaluate, "load_implementation", load)
    assert evaluate.choose_implementation("auto", "jax") == "jax"
    assert evaluate.choose_implementation("auto", "tf") == "pytorch"
    assert evaluate.choose_implementation("jax", "pytorch") == "jax"
    asked.clear()
    # What an untrusted file says is never imported.
    assert evaluate.choose_implementation("auto", "antigravity") == "pytorch"
    assert asked == ["pytorch"]
    absent |= {"pytorch", "jax"}
    with pytest.raises(MissingFrameworkError, match="tf is not installed; pytorch is not"):
        evaluate.choose_implementation("auto", "tf")


def test_a_run_whose_training_diverged(tmp_path: Path, data: Path) -> None:
    arrays = trained_arrays()
    arrays["generator/conv_transpose_5/kernel"][:] = np.nan
    run = write_run(tmp_path / "run", arrays)
    checkpoint = evaluate.open_checkpoint(run)
    dataset = evaluate.load_dataset(data, SPEC)
    with pytest.raises(ValueError, match="the generator makes NaN or infinity; "):
        evaluate.collect(installed_implementations()[0], checkpoint, dataset, 4, 0)


def taken(folder: Path) -> Path:
    (folder / "taken").mkdir()
    (folder / "taken" / "file").touch()
    return folder / "taken"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda d: [d / "nothing"], "nothing is no run with a checkpoint"),
        (lambda d: [d], "holds none; expected the folder that was --out in training"),
        (lambda d: [d / "run", "--step", 5], "--step 5: .* expected one of 7"),
        (lambda d: [d / "run", "--samples", 1], "--samples must be at least 2, received 1"),
        (lambda d: [d / "run", "--seed", -1], "--seed must be between 0 and"),
        (lambda d: [d / "run", "--framework", "theano"], "unknown implementation 'theano'"),
        (lambda d: [d / "run", "--data", d / "gone"], "gone does not exist"),
        (lambda d: [d / "lost"], "the run's data .*lost.npz is not there, .*: give --data"),
        (lambda d: [d / "run", "--save-samples", taken(d)], "taken is taken; expected an empty"),
        (lambda d: [d / "run", "--save-samples", d / "images.npz"], "images.npz is taken"),
        (
            lambda d: [d / "run", "--json", d / "no" / "file"],
            "there is no folder .*no; make it",
        ),
        (lambda d: [d / "run", "--json", d], "is a folder; name a file in it"),
        (lambda d: [d / "run", "--feature-weights", d / "f"], "received without --fid"),
        (lambda d: [d / "cut"], "step_000007.safetensors: expected a complete safetensors file"),
        (lambda d: [d / "foreign", "--data", d / "images.npz"], "does not say the seed"),
        (lambda d: [d / "run", "--data", write_data(d / "one.npz", 1)], "received 1 images to"),
    ],
)
def test_bad_input_is_one_line(
    arguments: Callable[[Path], list],
    message: str,
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    write_run(tmp_path / "run", writer=installed_implementations()[0].name)
    write_run(tmp_path / "lost", data=str(tmp_path / "lost.npz"))
    cut = RunFolder(write_run(tmp_path / "cut")).checkpoint(7)
    cut.write_bytes(cut.read_bytes()[:1000])
    foreign = RunFolder(write_run(tmp_path / "foreign")).checkpoint(7)
    write_checkpoint(foreign, trained_arrays(), SPEC, progress={"step": 7})
    assert evaluate.main([str(a) for a in arguments(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m shared.evaluate: error: ")
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error


# --- FID and KID -----------------------------------------------------------------------------


@pytest.fixture
def extractor(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Register 16 random projections of 8x8 pixels as a feature extractor of torch-fidelity."""
    try:
        fidelity.import_fidelity()
    except (FidelityError, MissingFrameworkError) as error:
        pytest.skip(str(error))
    import torch
    import torch_fidelity
    from torch_fidelity import registry

    class Projections(torch_fidelity.FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **_: object) -> None:
            super().__init__(name, features_list)
            weights = draw().standard_normal((3 * 64, 16)).astype(np.float32) / 8
            self.weights = torch.nn.Parameter(torch.from_numpy(weights))

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("projections",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "projections"

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
            small = torch.nn.functional.adaptive_avg_pool2d(images.float() / 255 - 0.5, 8)
            return (small.flatten(1) @ self.weights,)

    name = "projections-of-a-test"
    registry.register_feature_extractor(name, Projections)
    monkeypatch.setattr(fidelity, "FEATURE_EXTRACTOR", name)
    yield name
    del registry.FEATURE_EXTRACTORS_REGISTRY[name]


def save(folder: Path, seed: int, count: int = 200, channels: int = 3, white: int = 255) -> Path:
    pixels = draw(seed).integers(0, white + 1, (count, 16, 16, channels), np.uint8)
    evaluate.save_images(folder, pixels)
    return folder


def features_of(folder: Path, extractor: str) -> np.ndarray:
    """The projections of a folder's pictures, in NumPy alone."""
    from torch_fidelity import registry

    model = registry.FEATURE_EXTRACTORS_REGISTRY[extractor](extractor, ["projections"])
    pixels = [np.asarray(Image.open(f).convert("RGB")) for f in sorted(folder.iterdir())]
    small = np.stack(pixels).reshape(-1, 8, 2, 8, 2, 3).mean(axis=(2, 4)) / 255 - 0.5
    flat = small.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    return flat @ model.weights.detach().numpy()


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """|m - n|² + tr(A + B - 2 √(AB)), Heusel et al. 2017, equation 6."""
    from scipy.linalg import sqrtm

    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(covariances[0] @ covariances[1]).real
    means = a.mean(axis=0) - b.mean(axis=0)
    return float(means @ means + np.trace(covariances[0] + covariances[1] - 2 * root))


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased squared MMD with k(x, y) = (x·y / d + 1)³, Bińkowski et al. 2018, section 4."""
    m = len(a)
    within = sum((k := (x @ x.T / x.shape[1] + 1) ** 3).sum() - np.trace(k) for x in (a, b)) / (
        m * (m - 1)
    )
    return float(within - 2 * ((a @ b.T / a.shape[1] + 1) ** 3).mean())


def test_fid_and_kid_are_the_formulas_over_the_features(tmp_path: Path, extractor: str) -> None:
    folders = [save(tmp_path / "a", seed=1), save(tmp_path / "b", seed=2, channels=1)]
    features = [features_of(folder, extractor) for folder in folders]
    received = fidelity.fidelity(*folders)
    # All pictures are in every estimate, so the hundred estimates are one.
    assert received.kid_subset_size == 200
    assert received.kid_deviation == pytest.approx(0, abs=1e-6)
    # Features are float32. Measured 1e-7 and 2e-5.
    assert received.fid == pytest.approx(frechet(*features), rel=1e-4)
    assert received.kid == pytest.approx(kernel_distance(*features), rel=1e-3)


def test_a_folder_is_at_no_distance_from_itself(tmp_path: Path, extractor: str) -> None:
    folder = save(tmp_path / "a", seed=1)
    received = fidelity.fidelity(folder, folder)
    other = fidelity.fidelity(folder, save(tmp_path / "b", seed=2, count=150, white=128))
    # Measured 0.
    assert abs(received.fid) < 1e-5
    # Below 0, because the mixed term meets each picture with itself: measured -2.1e-3.
    assert -3e-3 < received.kid < 0
    assert (received.kid_subset_size, other.kid_subset_size) == (200, 150)
    assert other.fid > 0.1
    assert other.kid > 0.01


def test_the_command_prints_fid_and_kid(
    tmp_path: Path, data: Path, extractor: str, capsys: pytest.CaptureFixture
) -> None:
    run = write_run(tmp_path / "run")
    result = figures(tmp_path, run, "--data", data, "--samples", 12, "--fid")
    assert list(result["fidelity"]) == ["before training", "after 7 steps"]
    for one in result["fidelity"].values():
        assert math.isfinite(one["fid"])
        assert one["fid"] > 0
        assert one["kid_subset_size"] == 12
    printed = capsys.readouterr().out
    assert "FID KID x 1000" in " ".join(printed.split())


def test_a_folder_without_pictures(tmp_path: Path, extractor: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FidelityError, match="at least 2 PNG files in each folder; "):
        fidelity.fidelity(save(tmp_path / "a", seed=1), tmp_path / "empty")


def write_text(folder: Path) -> Path:
    (folder / "weights.pth").write_text("no weights")
    return folder / "weights.pth"


def write_code(folder: Path) -> Path:
    import torch

    class Dangerous:
        def __reduce__(self) -> tuple:
            return (Path.touch, (folder / "code has run",))

    torch.save({"weights": Dangerous()}, folder / "weights.pth")
    return folder / "weights.pth"


def write_other_weights(folder: Path) -> Path:
    import torch

    torch.save({"layer.weight": torch.zeros(3)}, folder / "weights.pth")
    return folder / "weights.pth"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: folder / "gone.pth", "gone.pth: expected a file of weights, found nothing"),
        (lambda folder: folder, "expected a file of weights, found a folder"),
        (write_text, "weights.pth: expected a PyTorch file of tensors and nothing else, found 10"),
        (write_code, "weights.pth: expected a PyTorch file of tensors and nothing else"),
        (write_other_weights, "weights.pth does not hold the weights of inception-v3-compat"),
    ],
)
@pytest.mark.usefixtures("extractor")
def test_weights_that_are_none(
    write: Callable[[Path], Path],
    message: str,
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(fidelity, "FEATURE_EXTRACTOR", "inception-v3-compat")
    run = write_run(tmp_path / "run")
    options = ["--data", data, "--fid", "--feature-weights", write(tmp_path)]
    assert evaluate.main([str(a) for a in (run, *options)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "code has run").exists()


@pytest.mark.usefixtures("extractor")
def test_weights_that_cannot_be_fetched(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from torch_fidelity import feature_extractor_inceptionv3

    def fail(*_: object, **__: object) -> None:
        print("Downloading", file=sys.stderr)  # as torch.hub does
        raise URLError("no route to host")

    monkeypatch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", fail)
    monkeypatch.setattr(fidelity, "FEATURE_EXTRACTOR", "inception-v3-compat")
    run = write_run(tmp_path / "run")
    assert evaluate.main([str(run), "--data", str(data), "--fid"]) == 2
    captured = capsys.readouterr()
    assert "cannot be fetched (<urlopen error no route to host>)" in captured.err
    assert "--feature-weights FILE" in captured.err
    assert len(captured.err.splitlines()) == 1
    assert "generated" not in captured.out  # before any work is done


def test_without_torch_fidelity_the_command_says_how_to_install_it(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    run = write_run(tmp_path / "run")
    assert evaluate.main([str(run), "--data", str(data), "--fid"]) == 2
    error = capsys.readouterr().err
    assert "FID and KID need torch-fidelity, which is not installed" in error
    assert "pip install -e '.[fid]'" in error


def test_a_torchvision_of_another_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nand a long trace")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(
        FidelityError, match="nms does not exist\\); expected torch and torchvision"
    ):
        fidelity.require_fidelity()
