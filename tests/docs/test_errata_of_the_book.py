"""Errata 1 to 6 of docs/losses.md, a book's: the wrong version is run and is wrong, ours right."""

import math
from typing import Any

import numpy as np
import pytest

from shared.interface import Implementation
from shared.spec import SYSTEMS
from shared.studies.equilibrium import APART, SAME, optimum, stratified
from tests.docs import errata
from tests.docs.errata_inputs import EXACT, MLP, NEEDS_TORCH, images, logit, started

# --- [A] -------------------------------------------------------------------------------------


def test_erratum_01_the_logarithm_is_of_the_probability(implementation: Implementation) -> None:
    for p in (0.1, 0.5, 0.9):
        assert errata.log_of_the_label(p, 1.0) == errata.log_of_the_label(p, 0.0) == 0.0
        values = implementation.loss("bce", logit([p]), logit([p]))
        expected = errata.cross_entropy(p, 1.0) + errata.cross_entropy(p, 0.0)
        assert float(values.discriminator) == pytest.approx(expected, abs=EXACT)
    # With soft labels it is the label's entropy: still the same for every p, so nothing is learnt.
    assert len({errata.log_of_the_label(p, 0.9) for p in (0.1, 0.5, 0.9)}) == 1


def test_erratum_02_the_second_expectation_is_over_latents(implementation: Implementation) -> None:
    """Measured: 2e-6 from the integral, with 4,000 numbers of either kind."""
    real, fake = (stratified(p, 4_000) for p in (APART.real, APART.fake))
    scores = [logit(optimum(APART, x)) for x in (real, fake)]
    values = implementation.loss("minimax", *scores)
    assert float(values.generator) == pytest.approx(errata.second_expectation("z"), abs=1e-5)
    assert abs(float(values.generator) - errata.second_expectation("x")) > 0.3
    # Over x, G does not occur: wherever it moves its numbers, the value stays.
    moved = [errata.second_expectation(over, mean=0.7) for over in ("x", "z")]
    assert moved[0] == errata.second_expectation("x")
    assert abs(moved[1] - errata.second_expectation("z")) > 0.01


def test_erratum_02_the_discriminator_takes_no_latents(implementation: Implementation) -> None:
    _, z = images(MLP, "float32")
    state = started(implementation, MLP, "float32")
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        implementation.discriminate(state, z)
    assert implementation.discriminate(state, implementation.generate(state, z)).shape == (4,)


def test_erratum_03_the_two_generators_are_two_objectives(implementation: Implementation) -> None:
    logits = np.array([-10.0, -1.0, 0.0, 1.0, 10.0])
    probability = 1.0 / (1.0 + np.exp(-logits))
    pulls = {
        loss: implementation.loss(loss, logits, logits).generator_fake_gradient * len(logits)
        for loss in ("minimax", "bce")
    }
    np.testing.assert_allclose(pulls["minimax"], -probability, rtol=1e-13)
    np.testing.assert_allclose(pulls["bce"], -1.0 / (1.0 + np.exp(logits)), rtol=1e-13)
    assert (pulls["minimax"] < 0).all()  # the same direction
    assert (pulls["bce"] < 0).all()
    assert pulls["bce"][0] / pulls["minimax"][0] == pytest.approx(math.exp(10.0), rel=1e-12)
    assert pulls["bce"][2] == pulls["minimax"][2] == -0.5


def test_erratum_03_they_prefer_different_batches(implementation: Implementation) -> None:
    losses = {
        loss: [
            float(implementation.loss(loss, logit(batch), logit(batch)).generator)
            for batch in (errata.EVEN, errata.UNEVEN)
        ]
        for loss in ("minimax", "bce")
    }
    assert losses["minimax"][1] < losses["minimax"][0]
    assert losses["bce"][0] < losses["bce"][1]


def test_erratum_04_the_second_term_is_added(implementation: Implementation) -> None:
    for y in (1.0, 0.9, 0.5):
        for p in (0.2, 0.9):
            for loss, score in (("bce", logit([p])), ("bce_probs", np.array([p]))):
                found = implementation.loss(loss, score, score, generator_label=y)
                expected = pytest.approx(errata.cross_entropy(p, y), abs=EXACT)
                assert float(found.generator) == expected, loss
    # Harmless with a hard target 1, upside down with 0, and between them without a least value.
    assert errata.minus_for_plus(0.3, 1.0) == errata.cross_entropy(0.3, 1.0)
    assert errata.minus_for_plus(0.3, 0.0) == -errata.cross_entropy(0.3, 0.0)
    tries = [0.9, 0.99, 1.0 - 1e-9]
    printed = [errata.minus_for_plus(p, 0.9) for p in tries]
    right = [errata.cross_entropy(p, 0.9) for p in tries]
    assert printed == sorted(printed, reverse=True)
    assert printed[-1] < -2.0
    assert right == sorted(right)


# --- [B] -------------------------------------------------------------------------------------


def test_erratum_05_which_label_is_whose(implementation: Implementation) -> None:
    """The book's a is real and its b fake; read as the paper's letters, D learns the opposite."""
    scores = np.array([1.0]), np.array([0.0])
    right = implementation.loss("lsgan", *scores, real_label=1.0, fake_label=0.0)
    swapped = implementation.loss("lsgan", *scores, real_label=0.0, fake_label=1.0)
    assert float(right.discriminator) == 0.0
    assert float(swapped.discriminator) == 1.0


def test_erratum_05_the_pearson_divergence() -> None:
    """Mao et al.'s condition gives the divergence itself; 1, 0, 1 half of 1 and a quarter of it.

    Completing the square: 2C = 2m² + k²χ², m = (real + fake) / 2 - generator and
    k = (real - fake) / 2. Measured 2e-16.
    """
    divergence = errata.pearson_divergence()
    for real, fake, generator in ((1, -1, 0), (1, 0, 1), (1, 0, 0.5), (0.9, 0.2, 1)):
        found = errata.twice_generator_criterion((real, fake), generator)
        m, k = (real + fake) / 2.0 - generator, (real - fake) / 2.0
        assert found == pytest.approx(2.0 * m**2 + k**2 * divergence, abs=EXACT)
        fulfils = real - generator == 1 and real - fake == 2
        assert (found == pytest.approx(divergence, abs=EXACT)) == fulfils


def test_erratum_05_the_pull_at_equilibrium(implementation: Implementation) -> None:
    """D* is the mean of the labels there: G rests under the paper's condition, not under ours."""
    for (real, fake, generator), pull in (((1.0, -1.0, 0.0), 0.0), ((1.0, 0.0, 1.0), -0.5)):
        score = optimum(SAME, np.array([0.3]), {"real_label": real, "fake_label": fake})
        named = {"real_label": real, "fake_label": fake, "generator_label": generator}
        values = implementation.loss("lsgan", score, score, **named)
        assert float(values.generator_fake_gradient[0]) == pytest.approx(pull, abs=EXACT)


def test_erratum_05_a_least_squares_score_is_no_probability(
    implementation: Implementation,
) -> None:
    spec = SYSTEMS["dcgan64-lsgan"].replace(width=4, latent_dim=10, batch_size=2)
    state = started(implementation, spec, "float32")
    real, _ = images(spec, "float32")
    arrays = implementation.export_state(state)
    for bias, outside in ((30.0, 1.0), (-30.0, 0.0)):
        moved = arrays | {"discriminator/dense_5/bias": np.array([bias], np.float32)}
        implementation.import_state(state, moved)
        scores = implementation.discriminate(state, real)
        assert ((scores > 1.0) if outside else (scores < 0.0)).all()


def test_erratum_06_the_head_follows_from_size_and_width() -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    assert {width: errata.head_inputs(width) for width in (64, 32)} == {64: 8192, 32: 4096}
    printed = torch.nn.Linear(8192, 1)
    assert printed(torch.zeros(2, 512, 4, 4).flatten(1)).shape == (2, 1)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        printed(torch.zeros(2, 256, 4, 4).flatten(1))


def test_erratum_06_dcgans_initialiser_leaves_the_head_alone() -> None:
    """The usual function looks for "Conv" and "BatchNorm" in the class's name."""
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)

    def initialise(layer: Any) -> None:
        if "Conv" in type(layer).__name__:
            torch.nn.init.normal_(layer.weight, 0.0, 0.02)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 4), torch.nn.Linear(8192, 1))
        before = network[1].weight.detach().clone()
        network.apply(initialise)
    assert network[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(network[1].weight, before)
    assert network[1].weight.abs().max().item() <= 8192**-0.5


def test_erratum_06_our_head_is_uniform_too(implementation: Implementation) -> None:
    """8,192 numbers: the standard deviation is known to 0.5 %; 0.02 would be 3.2 times it."""
    state = started(implementation, SYSTEMS["dcgan64-lsgan"], "float32")
    arrays = implementation.export_state(state)
    kernel = arrays["discriminator/dense_5/kernel"]
    assert kernel.shape == (8192, 1)
    assert 0.999 * 8192**-0.5 < np.abs(kernel).max() <= 8192**-0.5 * (1.0 + 1e-6)
    assert kernel.std() == pytest.approx((3 * 8192) ** -0.5, rel=0.02)
    assert arrays["discriminator/conv_1/kernel"].std() == pytest.approx(0.02, rel=0.1)
