"""`python -m shared.evaluate`: the figures, and the images that they are of."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared import sample
from shared.interface import Implementation
from shared.quality.metrics import sliced_wasserstein_distance
from shared.sample import Generator
from shared.spec import SYSTEMS, SystemSpec
from shared.spec.streams import initial_state, latents
from shared.studies import evaluate
from tests.conftest import installed_implementations
from tests.studies.evaluated_run import (
    SEED,
    SPEC,
    draw,
    figures,
    trained_arrays,
    write_data,
    write_run,
)
from tests.tiers import SLOW_IN_TF_AND_JAX


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
        monkeypatch.setattr(sample, "choose_implementation", lambda *_: Stub(make))

    return install


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


@SLOW_IN_TF_AND_JAX
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
    result = figures(tmp_path, run, "--data", data, "--samples", 20)
    assert sample.main([str(run), "--count", "20", "--out", str(saved)]) == 0
    files = sorted(saved.iterdir())
    assert [file.name for file in files] == [f"sample_{i:06d}.png" for i in range(20)]
    samples = np.stack([np.asarray(Image.open(file)) for file in files])
    # 20 of 20: all of the data, in the order of the seed, which no level depends on in the mean;
    # so it is asked for.
    images = np.load(data)["images"]
    order = evaluate.stream(0, "evaluation/real").permutation(20)
    expected = sliced_wasserstein_distance(images[order], samples, (0, 255))
    row = result["sliced_wasserstein_x1000"]["after 7 steps"]
    assert row["by_size"] == {str(size): value for size, value in expected.items()}


def test_samples_depend_on_seed_and_index_alone(tmp_path: Path, data: Path) -> None:
    run = write_run(tmp_path / "run")
    pixels = {}
    for name, options in {
        "few": ("--count", "5"),
        "more": ("--count", "9"),
        "other": ("--count", "5", "--seed", "1"),
    }.items():
        assert sample.main([str(run), *options, "--out", str(tmp_path / name)]) == 0
        files = sorted((tmp_path / name).iterdir())
        pixels[name] = np.stack([np.asarray(Image.open(file)) for file in files])
    assert np.array_equal(pixels["few"], pixels["more"][:5])
    assert not np.array_equal(pixels["few"], pixels["other"])


def test_latents_are_none_that_training_has_used() -> None:
    drawn: list[np.ndarray] = []

    def make(state: str, batch: np.ndarray) -> np.ndarray:
        drawn.append(batch)
        return np.zeros((len(batch), *SPEC.image_shape))

    Generator(Stub(make), {"is": "after"}, SPEC, "float64").sample(64, SEED)
    for purpose in ("latents", "sample_grid"):
        used = latents(SPEC, SEED, 0, 64, purpose=purpose)
        assert not np.isin(drawn[0], used).any()


def test_more_than_one_batch_has_no_image_twice() -> None:
    spec = SYSTEMS["dcgan64"]

    def make(state: str, drawn: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.tanh(drawn[:, :1, None, None]), (len(drawn), 64, 64, 3))

    pixels = Generator(Stub(make), {"is": "after"}, spec, "float32").sample(150)
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
    note = "note: real against real: received real images [1, 64, 64, 3], generated ones [1, 64, "
    assert note in capsys.readouterr().out
