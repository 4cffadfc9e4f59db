"""The curves of docs/images/loss_curves.png: closed forms, finite differences, and the command."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.spec import LOSS_NAMES
from shared.studies import loss_curves
from shared.studies.loss_curves import ROLES, loss_curve

SCORES = np.linspace(-6.0, 6.0, 49)
SIGMOID = 1.0 / (1.0 + np.exp(-SCORES))

# (loss, role) → value and derivative by the score, written without the code under test
CROSS_ENTROPY = {
    "real": (-np.log(SIGMOID), SIGMOID - 1.0),
    "fake": (-np.log(1.0 - SIGMOID), SIGMOID),
    "generator": (-np.log(SIGMOID), SIGMOID - 1.0),
}
CLOSED_FORMS = {
    **{(loss, role): CROSS_ENTROPY[role] for loss in ("bce", "bce_probs") for role in ROLES},
    ("minimax", "real"): CROSS_ENTROPY["real"],
    ("minimax", "fake"): CROSS_ENTROPY["fake"],
    ("minimax", "generator"): (np.log(1.0 - SIGMOID), -SIGMOID),
    ("lsgan", "real"): ((SCORES - 1.0) ** 2 / 2.0, SCORES - 1.0),
    ("lsgan", "fake"): (SCORES**2 / 2.0, SCORES),
    ("lsgan", "generator"): ((SCORES - 1.0) ** 2 / 2.0, SCORES - 1.0),
}


# Measured: 1e-13 relative, from the closed forms' own 1 - σ.
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_the_curves_are_the_closed_forms(loss: str, role: str) -> None:
    curves = loss_curve(loss, role, SCORES)
    for curve, expected in zip(curves, CLOSED_FORMS[loss, role], strict=True):
        np.testing.assert_allclose(curve, expected, rtol=1e-11, atol=0)


# Central differences with a step of 1e-5: measured 2e-10, of which 1e-11 is the step's square.
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_the_lower_row_is_the_slope_of_the_upper(loss: str, role: str) -> None:
    step = 1e-5
    ahead, behind = (loss_curve(loss, role, SCORES + s)[0] for s in (step, -step))
    gradient = loss_curve(loss, role, SCORES)[1]
    np.testing.assert_allclose((ahead - behind) / (2.0 * step), gradient, atol=2e-9)


def test_what_the_notes_in_the_picture_say() -> None:
    """Confident and right: cross entropy lets go, least squares pulls; a rejected fake likewise."""
    far = np.array([6.0])
    assert abs(loss_curve("bce", "real", far)[1][0]) < 0.0025
    assert loss_curve("lsgan", "real", far)[1][0] == 5.0
    assert abs(loss_curve("bce", "fake", -far)[1][0]) < 0.0025
    assert loss_curve("lsgan", "fake", -far)[1][0] == -6.0
    assert abs(loss_curve("minimax", "generator", -far)[1][0]) < 0.0025
    assert loss_curve("bce", "generator", -far)[1][0] < -0.9975
    assert loss_curve("lsgan", "generator", far)[1][0] == 5.0


def test_the_picture_has_a_style_for_every_loss() -> None:
    assert set(LOSS_NAMES) == set(loss_curves._DRAWN["styles"])
    assert list(ROLES) == list(loss_curves._DRAWN["notes"])


def test_the_command_draws_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "curves.png"
    assert loss_curves.main(["--out", str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (1100, 720))
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def test_a_bad_path_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, message in (
        (tmp_path / "no" / "x.png", "no folder"),
        (tmp_path, "is a folder"),
    ):
        assert loss_curves.main(["--out", str(path)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    with pytest.raises(SystemExit) as raised:
        loss_curves.main(["--size", "3"])
    assert raised.value.code == 2
