"""FID and KID: the formulas over the features, and weights that are missing or none."""

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from shared.files.errors import InputError
from shared.interface import MissingFrameworkError
from shared.quality import fidelity
from shared.studies import evaluate
from tests.studies.evaluated_run import draw, figures, write_run


@pytest.fixture
def extractor(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Register 16 random projections of 8x8 pixels as a feature extractor of torch-fidelity."""
    try:
        fidelity.import_fidelity()
    except (InputError, MissingFrameworkError) as error:
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


def images(seed: int, count: int = 200, channels: int = 3, white: int = 255) -> np.ndarray:
    return draw(seed).integers(0, white + 1, (count, 16, 16, channels), np.uint8)


def features_of(pixels: np.ndarray, extractor: str) -> np.ndarray:
    """The projections of images, in NumPy alone."""
    from torch_fidelity import registry

    model = registry.FEATURE_EXTRACTORS_REGISTRY[extractor](extractor, ["projections"])
    coloured = pixels if pixels.shape[3] == 3 else pixels.repeat(3, axis=3)
    small = coloured.reshape(-1, 8, 2, 8, 2, 3).mean(axis=(2, 4)) / 255 - 0.5
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


def test_fid_and_kid_are_the_formulas_over_the_features(extractor: str) -> None:
    sets = images(seed=1), images(seed=2, channels=1)
    features = [features_of(pixels, extractor) for pixels in sets]
    received = fidelity.fidelity(*sets)
    # All images are in every estimate, so the hundred estimates are one.
    assert received["kid_subset_size"] == 200
    assert received["kid_deviation"] == pytest.approx(0, abs=1e-6)
    # Features are float32. Measured 1e-7 and 2e-5.
    assert received["fid"] == pytest.approx(frechet(*features), rel=1e-4)
    assert received["kid"] == pytest.approx(kernel_distance(*features), rel=1e-3)


@pytest.mark.usefixtures("extractor")
def test_a_set_is_at_no_distance_from_itself() -> None:
    same = images(seed=1)
    received = fidelity.fidelity(same, same)
    other = fidelity.fidelity(same, images(seed=2, count=150, white=128))
    # Measured 0.
    assert abs(received["fid"]) < 1e-5
    # Below 0, because the mixed term meets each image with itself: measured -2.1e-3.
    assert -3e-3 < received["kid"] < 0
    assert (received["kid_subset_size"], other["kid_subset_size"]) == (200, 150)
    assert other["fid"] > 0.1
    assert other["kid"] > 0.01


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
        (write_text, "weights.pth does not hold the weights of inception-v3-compat"),
        (write_code, "weights.pth does not hold the weights of inception-v3-compat"),
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
    assert "--fid needs torch_fidelity, which is not installed" in error
    assert "pip install -c constraints.txt -e '.[fid]'" in error


def test_a_torchvision_of_another_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nand a long trace")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(InputError, match=r"nms does not exist .*; expected torch and torchv"):
        fidelity.require_fidelity()
