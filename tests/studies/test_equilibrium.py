"""The optimal discriminator, reached by training in every framework, and the equilibrium."""

import dataclasses
import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from PIL import Image
from scipy import integrate

from shared.interface import Implementation, LossValues
from shared.reference.adapter import implementation as reference
from shared.reference.losses import discriminator_half
from shared.spec import LOSS_NAMES, Conventions
from shared.studies import equilibrium
from shared.studies.equilibrium import (
    APART,
    HARD,
    MAXIMUM_BOUND,
    MEAN_BOUND,
    SAME,
    Densities,
    Labels,
    Result,
    jensen_shannon,
    least_loss,
    optimum,
    train,
)
from tests import exit_code
from tests.conftest import require_framework
from tests.tiers import SLOW_IN_TF_AND_JAX, one_in


def labelled(real: float, fake: float = 0.0) -> Labels:
    return {"real_label": real, "fake_label": fake}


SMOOTHED = labelled(0.9)
CASES = [
    ("bce", APART, HARD),
    ("minimax", APART, HARD),
    ("bce_probs", APART, HARD),
    ("lsgan", APART, HARD),
    ("lsgan", APART, SMOOTHED),
]
MORE_CASES = [
    ("bce", APART, SMOOTHED),
    ("bce_probs", APART, labelled(0.9, 0.2)),
    ("lsgan", APART, labelled(1.0, -1.0)),
    ("bce", SAME, SMOOTHED),
    ("lsgan", SAME, HARD),
]


def case_id(case: object) -> str:
    if isinstance(case, dict):
        return "/".join(f"{label:g}" for label in case.values())
    return {id(APART): "apart", id(SAME): "same"}.get(id(case), str(case))


# --- trained discriminators ---------------------------------------------------------------------


# Every case in PyTorch; two of the losses in each of the others, whose gradients
# tests/implementations/test_losses.py holds to two units in the last place for all.
IN_FRAMEWORKS = [
    *(("pytorch", *case) for case in CASES),
    ("tf", "bce", APART, HARD),
    ("tf", "bce_probs", APART, HARD),
    ("jax", "minimax", APART, HARD),
    ("jax", "lsgan", APART, SMOOTHED),
]


# Measured in all three and in the reference, in the same digits: shared/studies/equilibrium.py.
@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize(
    ("framework", "loss", "densities", "labels"), one_in(3, IN_FRAMEWORKS), ids=case_id
)
def test_a_trained_discriminator_is_the_optimal_one(
    framework: str, loss: str, densities: Densities, labels: Labels
) -> None:
    result = train(require_framework(framework), loss, densities, labels)
    assert result.is_optimal, equilibrium.table([result])


@pytest.mark.parametrize(
    ("loss", "densities", "labels"), one_in(3, CASES + MORE_CASES), ids=case_id
)
def test_the_reference_reaches_it_too(loss: str, densities: Densities, labels: Labels) -> None:
    result = train(reference, loss, densities, labels)
    assert result.is_optimal, equilibrium.table([result])


@pytest.mark.parametrize(("loss", "densities", "labels"), CASES + MORE_CASES, ids=case_id)
def test_no_discriminator_starts_at_its_optimum(
    loss: str, densities: Densities, labels: Labels
) -> None:
    start = train(reference, loss, densities, labels, steps=0)
    assert start.maximum > MAXIMUM_BOUND
    assert start.mean > MEAN_BOUND


def distance(densities: Densities, wrong: np.ndarray, labels: Labels) -> tuple[float, float]:
    """Return how far a wrong optimum is from D*, as the maximum and mean of an `Result`."""
    x = densities.between_quantiles(0.01, 801)
    difference = np.abs(wrong - optimum(densities, x, labels))
    weights = np.add(*densities.at(x))
    return float(difference.max()), float(np.average(difference, weights=weights))


def test_the_bounds_exclude_the_wrong_optima() -> None:
    """The nearest is a label of 0.9 that is ignored: 0.081 and 0.050; then the density p_d."""
    x = APART.between_quantiles(0.01, 801)
    real, fake = APART.at(x)
    wrong = {
        "swapped labels": (optimum(APART, x, labelled(0.0, 1.0)), HARD),
        "an ignored label": (optimum(APART, x), SMOOTHED),
        "the density": (real, HARD),
        "the ratio": (real / fake, HARD),
        "a half": (np.full_like(x, 0.5), HARD),
    }
    found = {name: distance(APART, *pair) for name, pair in wrong.items()}
    for name, (maximum, mean) in found.items():
        assert maximum > 2.5 * MAXIMUM_BOUND, name
        assert mean > 10 * MEAN_BOUND, name
    assert min(found, key=lambda name: found[name][1]) == "an ignored label"
    assert found["an ignored label"] == pytest.approx((0.081, 0.050), abs=0.001)


class Wrong:
    """The reference with one planted fault in the discriminator's loss."""

    name = "wrong"

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def loss(self, loss: str, real: np.ndarray, fake: np.ndarray, **labels: float) -> LossValues:
        if self.fault == "labels ignored":
            labels = {}
        if self.fault == "labels swapped":
            labels = {"real_label": labels["fake_label"], "fake_label": labels["real_label"]}
        values = reference.loss(loss, real, fake, **labels)
        if self.fault == "fake half 1.2 times":
            gradient = 1.2 * values.discriminator_fake_gradient
            values = dataclasses.replace(values, discriminator_fake_gradient=gradient)
        if self.fault == "value without the fake half":
            half = discriminator_half(loss, real, labels["real_label"], Conventions())[0]
            values = dataclasses.replace(values, discriminator=np.asarray(half))
        return values


@pytest.mark.parametrize(
    "fault",
    one_in(
        4,
        ["labels ignored", "labels swapped", "fake half 1.2 times", "value without the fake half"],
    ),
)
@pytest.mark.parametrize("loss", ["bce", "lsgan"])
def test_a_planted_fault_is_not_optimal(loss: str, fault: str) -> None:
    assert train(Wrong("none"), loss, APART, SMOOTHED).is_optimal  # type: ignore[arg-type]
    assert not train(Wrong(fault), loss, APART, SMOOTHED).is_optimal  # type: ignore[arg-type]


def test_every_part_of_a_result_is_held() -> None:
    fine = Result("x", "bce", np.zeros(1), np.zeros(1), 0.0, 0.0, 1.0, 1.0)
    assert fine.is_optimal
    for change in ({"maximum": 0.0131}, {"mean": 0.00151}, {"value": 1.00041}, {"value": math.nan}):
        assert not fine._replace(**change).is_optimal


def test_a_run_is_repeated_by_its_seed() -> None:
    first, again, other = (train(reference, "bce", steps=20, seed=s) for s in (3, 3, 4))
    assert np.array_equal(first.answers, again.answers)
    assert not np.array_equal(first.answers, other.answers)


# --- the optimum and the divergence, by other means -----------------------------------------------


@pytest.mark.parametrize("labels", [HARD, SMOOTHED, labelled(0.8, 0.3)], ids=case_id)
@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_the_optimum_is_the_pointwise_minimum(loss: str, labels: Labels) -> None:
    """By trying 20,001 answers at each of five x; the reference's own loss of one score."""
    answers = np.linspace(0.0, 1.0, 20_001)[1:-1]
    scores = np.log(answers / (1.0 - answers)) if loss in ("bce", "minimax") else answers
    halves = []
    for label in labels.values():
        # The gradient of the mean, times the batch, is that of one score; its sum is the loss.
        _, gradient = discriminator_half(loss, scores, label, Conventions())
        slope = gradient * scores.size
        halves.append(
            np.concatenate([[0.0], np.cumsum(np.diff(scores) * (slope[1:] + slope[:-1]) / 2)])
        )
    x = np.array([-2.0, -0.5, 0.0, 0.7, 3.0])
    for real, fake, best in zip(*APART.at(x), optimum(APART, x, labels), strict=True):
        found = answers[np.argmin(real * halves[0] + fake * halves[1])]
        assert found == pytest.approx(best, abs=2e-4)


def scipy_integral(function: object) -> float:
    return integrate.quad(function, -15.0, 15.0, epsabs=1e-13, limit=500, points=[-0.5, 0.8])[0]


def test_the_quadrature_against_scipy() -> None:
    p, q = APART.real.pdf, APART.fake.pdf

    def divergence(x: float) -> float:
        middle = (p(x) + q(x)) / 2.0
        return sum(f * math.log(f / middle) for f in (p(x), q(x)) if f > 0.0) / 2.0

    assert jensen_shannon(APART) == pytest.approx(scipy_integral(divergence), abs=1e-11)
    overlap = scipy_integral(lambda x: p(x) * q(x) / (p(x) + q(x)) if p(x) + q(x) else 0.0)
    for labels in (HARD, SMOOTHED, labelled(1.0, -1.0)):
        expected = (labels["real_label"] - labels["fake_label"]) ** 2 * overlap / 2.0
        assert least_loss("lsgan", APART, labels) == pytest.approx(expected, abs=1e-11)


def test_the_least_cross_entropy_is_log_4_minus_twice_the_divergence() -> None:
    """Goodfellow et al. 2014, theorem 1; measured 1e-15."""
    far = Densities(NormalDist(-4.0, 0.5), NormalDist(4.0, 0.5))
    for densities in (APART, SAME, far):
        for loss in ("bce", "minimax", "bce_probs"):
            expected = math.log(4.0) - 2.0 * jensen_shannon(densities)
            assert least_loss(loss, densities) == pytest.approx(expected, abs=1e-12)
    assert jensen_shannon(SAME) == pytest.approx(0.0, abs=1e-15)
    assert jensen_shannon(far) == pytest.approx(math.log(2.0), abs=1e-9)


# --- the equilibrium, in every framework ----------------------------------------------------------

# loss → (the score of D = ½, D's loss, G's loss) where p_g = p_d
EQUILIBRIUM = {
    "bce": (0.0, 2.0 * math.log(2.0), math.log(2.0)),
    "minimax": (0.0, 2.0 * math.log(2.0), -math.log(2.0)),
    "bce_probs": (0.5, 2.0 * math.log(2.0), math.log(2.0)),
    "lsgan": (0.5, 0.25, 0.125),
}


@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_the_losses_at_equilibrium(implementation: Implementation, loss: str) -> None:
    score, discriminator, generator = EQUILIBRIUM[loss]
    values = implementation.loss(loss, np.full(6, score), np.full(6, score))
    assert float(values.discriminator) == pytest.approx(discriminator, abs=1e-15)
    assert float(values.generator) == pytest.approx(generator, abs=1e-15)
    if loss == "minimax":  # minus D's loss is the value of the game
        assert -float(values.discriminator) == pytest.approx(-math.log(4.0), abs=1e-15)


@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_a_half_is_the_best_answer_where_the_densities_are_equal(
    implementation: Implementation, loss: str
) -> None:
    """The same images are real and fake: the two gradients cancel at D = ½ and nowhere near it."""
    best, least, _ = EQUILIBRIUM[loss]
    for distance_, sign in ((0.0, 0), (0.01, 1), (-0.01, -1)):
        scores = np.full(4, best + distance_)
        values = implementation.loss(loss, scores, scores)
        total = (values.discriminator_real_gradient + values.discriminator_fake_gradient).sum()
        assert np.sign(np.round(total, 12)) == sign
        assert (float(values.discriminator) > least + 1e-6) == (sign != 0)


LOGITS = np.array([-30.0, -10.0, -1.0, 0.0, 1.0, 10.0, 30.0])


# Measured: 1e-16 relative. At -10 the other objective is 22,026 times as large.
def test_the_logit_gradients_of_both_generator_objectives(implementation: Implementation) -> None:
    sigmoid, rest = 1.0 / (1.0 + np.exp(-LOGITS)), 1.0 / (1.0 + np.exp(LOGITS))
    for loss, expected in (("minimax", -sigmoid), ("bce", -rest)):
        values = implementation.loss(loss, LOGITS, LOGITS)
        received = values.generator_fake_gradient * len(LOGITS)
        np.testing.assert_allclose(received, expected, rtol=1e-14)


# --- the command --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_prints_a_table_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "optimum.png"
    assert equilibrium.main(["reference", "--plot", str(path)]) == 0
    out = capsys.readouterr().out
    assert "-log 4 + 2 JSD = -0.95824" in out
    assert [line.split()[1] for line in out.splitlines()[-4:]] == list(LOSS_NAMES)
    with Image.open(path) as image:
        assert image.format == "PNG"


def test_the_command_knows_what_is_not_optimal(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["reference", "--loss", "bce", "--steps"]
    assert equilibrium.main([*options, "5"]) == 1
    assert "not optimal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nobody"], "unknown implementation 'nobody'"),
        (["--steps", "0"], "--steps: must be at least 1, received 0"),
        (["--seed", "-1"], "--seed: must be at least 0"),
        (["--plot", "no/such/folder.png"], "there is no folder no/such; make it"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [] if options == ["nobody"] else ["reference"]
    assert exit_code(equilibrium.main, [*names, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
