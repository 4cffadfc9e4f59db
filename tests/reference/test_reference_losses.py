"""The reference's losses against outside figures, closed forms and finite differences."""

import math

import numpy as np
import pytest

from shared.reference.losses import loss_values
from shared.spec import LOSS_NAMES, Conventions

# Inputs of TF-GAN's own loss tests, and the figures that they assert.
TFGAN_REAL = np.array([-5.0, 1.4, 12.5, 2.7])
TFGAN_FAKE = np.array([10.0, 4.4, -5.5, 3.6])


def test_tfgan_figures() -> None:
    """An outside oracle; TF-GAN asserts five decimals (its tests' default 1e-5)."""
    lsgan = loss_values("lsgan", TFGAN_REAL, TFGAN_FAKE)
    assert lsgan.generator == pytest.approx(17.69625, abs=1e-5)
    assert lsgan.discriminator == pytest.approx(41.73375, abs=1e-5)
    bce = loss_values("bce", TFGAN_REAL, TFGAN_FAKE)
    assert bce.generator == pytest.approx(1.38582, abs=1e-5)
    smoothed = Conventions(real_label=0.875)
    minimax = loss_values("minimax", TFGAN_REAL, TFGAN_FAKE, smoothed)
    assert minimax.discriminator == pytest.approx(6.19637, abs=1e-5)
    # TF-GAN's minimax generator is minus a whole discriminator loss, here without the real half.
    assert minimax.generator == pytest.approx(-4.51082, abs=1e-5)


def test_equilibrium_on_logits() -> None:
    # D = 1/2 everywhere is a logit of 0 (Goodfellow et al. 2014, theorem 1).
    zeros = np.zeros(5)
    assert loss_values("bce", zeros, zeros).discriminator == pytest.approx(2 * math.log(2))
    assert loss_values("bce", zeros, zeros).generator == pytest.approx(math.log(2))
    value = -loss_values("minimax", zeros, zeros).discriminator
    assert value == pytest.approx(-math.log(4))
    assert loss_values("minimax", zeros, zeros).generator == pytest.approx(-math.log(2))


def test_equilibrium_on_probabilities_and_least_squares() -> None:
    halves = np.full(5, 0.5)
    assert loss_values("bce_probs", halves, halves).discriminator == pytest.approx(2 * math.log(2))
    assert loss_values("lsgan", halves, halves).discriminator == pytest.approx(0.25)
    assert loss_values("lsgan", halves, halves).generator == pytest.approx(0.125)


@pytest.mark.parametrize("logit", [-10.0, -1.0, 0.0, 3.0])
def test_logit_gradients_of_both_generator_objectives(logit: float) -> None:
    scores = np.array([logit])
    sigmoid = 1 / (1 + math.exp(-logit))
    saturating = loss_values("minimax", scores, scores).generator_fake_gradient
    non_saturating = loss_values("bce", scores, scores).generator_fake_gradient
    assert saturating[0] == pytest.approx(-sigmoid, rel=1e-14)
    assert non_saturating[0] == pytest.approx(-(1 - sigmoid), rel=1e-12)


def test_the_discriminators_label_is_b_of_the_paper_for_fake() -> None:
    # Asymmetric labels: swapping a and b would give another number.
    labels = Conventions(real_label=2.0, fake_label=-1.0, generator_label=0.5)
    values = loss_values("lsgan", np.array([1.0]), np.array([3.0]), labels)
    assert values.discriminator == pytest.approx(0.5 * 1 + 0.5 * 16)
    assert values.generator == pytest.approx(0.5 * 6.25)


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize(
    "conventions",
    [
        Conventions(),
        Conventions(real_label=0.9, fake_label=0.1, generator_label=0.8),
        Conventions(loss_reduction="sum", discriminator_loss_scale=0.5, lsgan_scale=1.0),
        Conventions(generator_objective="saturating"),
        Conventions(generator_objective="non_saturating"),
        Conventions(probability_clipping="epsilon_1e-7"),
        Conventions(probability_clipping="none"),
    ],
    ids=str,
)
def test_gradients_against_finite_differences(loss: str, conventions: Conventions) -> None:
    draw = np.random.default_rng(0)
    sample = draw.uniform(0.05, 0.95, (2, 7)) if loss == "bce_probs" else draw.normal(size=(2, 7))
    real, fake = sample
    values = loss_values(loss, real, fake, conventions)
    step = 1e-6
    for i in range(7):
        nudge = np.zeros(7)
        nudge[i] = step
        for field, gradient, (dr, df) in (
            ("discriminator", values.discriminator_real_gradient, (nudge, 0)),
            ("discriminator", values.discriminator_fake_gradient, (0, nudge)),
            ("generator", values.generator_fake_gradient, (0, nudge)),
        ):
            ahead = getattr(loss_values(loss, real + dr, fake + df, conventions), field)
            behind = getattr(loss_values(loss, real - dr, fake - df, conventions), field)
            numeric = (ahead - behind) / (2 * step)
            assert numeric == pytest.approx(gradient[i], rel=1e-6, abs=1e-9)


def test_probabilities_are_clamped_as_torch_clamps_them() -> None:
    edge = loss_values("bce_probs", np.array([0.0]), np.array([1.0]))
    assert edge.discriminator == 200.0
    assert edge.generator == 0.0
    clipped = loss_values(
        "bce_probs",
        np.array([0.0]),
        np.array([0.0]),
        Conventions(probability_clipping="epsilon_1e-7"),
    )
    assert clipped.generator == pytest.approx(-math.log(1e-7))
    assert clipped.generator_fake_gradient[0] == 0.0


def test_misshapen_scores_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[batch\], received \(4, 1\)"):
        loss_values("bce", np.zeros((4, 1)), np.zeros(4))
    with pytest.raises(ValueError, match="unknown loss 'hinge'"):
        loss_values("hinge", np.zeros(4), np.zeros(4))
