"""Labels that are named from recorded losses and the scores that they are made of."""

from pathlib import Path

import numpy as np
import pytest

from shared.explain.recordings import explain_recordings
from shared.record import Recorder

CANONICAL = (1.0, 0.0, 1.0)  # of real images, of fake ones, of the generator


def cross_entropy(logits: np.ndarray, label: float) -> float:
    """-label · log σ(x) - (1 - label) · log(1 - σ(x)), written anew."""
    p = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    return float(np.mean(-label * np.log(p) - (1.0 - label) * np.log(1.0 - p)))


def half_square(scores: np.ndarray, label: float) -> float:
    return float(np.mean(0.5 * (scores.astype(np.float64) - label) ** 2))


def recorded(path: Path, labels: tuple[float, ...], **how: object) -> Path:
    """Record some steps of a loop that keeps D's last outputs and its losses in float32."""
    loss, draw = how.get("loss", cross_entropy), np.random.default_rng(0)
    with Recorder(path) as record:
        for _ in range(how.get("steps", 2)):
            record.step()
            scores = [draw.standard_normal(8).astype(np.float32) for _ in range(3)]
            for name, array in zip(("output", "output/2", "output/3"), scores, strict=True):
                record(f"d/dense/{name}", array[:, None])
            real, fake, generator = (loss(x, y) for x, y in zip(scores, labels, strict=True))
            fake += how.get("penalty", 0.0)
            if how.get("total"):
                record("d_loss", np.float32(real + fake))
            else:
                record("d_loss_real", np.float32(real))
                record("d_loss_fake", np.float32(fake))
            record("g_loss", np.float32(generator))
    return path


@pytest.mark.parametrize("total", [False, True])
@pytest.mark.parametrize(
    ("labels", "named", "loss"),
    [
        ((0.9, 0.0, 1.0), {("real_label", "1.0", "0.9")}, cross_entropy),
        ((0.85, 0.0, 1.0), {("real_label", "1.0", "0.85")}, cross_entropy),
        ((1.0, 0.1, 1.0), {("fake_label", "0.0", "0.1")}, cross_entropy),
        ((1.0, 0.0, 0.9), {("generator_label", "1.0", "0.9")}, cross_entropy),
        ((0.9, 0.0, 1.0), {("real_label", "1.0", "0.9")}, half_square),
        (
            (0.9, 0.1, 1.0),
            {("real_label", "1.0", "0.9"), ("fake_label", "0.0", "0.1")},
            cross_entropy,
        ),
    ],
)
def test_labels_are_named(
    tmp_path: Path, labels: tuple, named: set, loss: object, total: bool
) -> None:
    first = recorded(tmp_path / "first", CANONICAL, loss=loss, total=total)
    report = explain_recordings(
        first, recorded(tmp_path / "second", labels, loss=loss, total=total)
    )
    assert {(trap.field, trap.first, trap.second) for trap in report.traps} == named
    assert all(trap.certain and trap.anchor for trap in report.traps)


@pytest.mark.parametrize(
    "how",
    [
        {"labels": (0.85, 0.0, 1.0), "steps": 1},  # a fit to one number proves nothing
        {"labels": CANONICAL, "penalty": 0.03},
        {"labels": CANONICAL, "penalty": 0.03, "total": True},
        {"labels": CANONICAL, "loss": lambda x, y: cross_entropy(x, y) ** 1.1},
    ],
)
def test_what_no_label_explains_is_not_named(tmp_path: Path, how: dict) -> None:
    own = {key: how[key] for key in ("steps", "total") if key in how}
    first = recorded(tmp_path / "first", CANONICAL, **own)
    labels = how.pop("labels")
    report = explain_recordings(first, recorded(tmp_path / "second", labels, **how))
    assert report.first_difference is not None
    assert report.traps == ()
