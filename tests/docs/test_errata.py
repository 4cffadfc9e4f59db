"""The fifteen errata of docs/losses.md: the wrong version is run and is wrong, ours is right."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from shared.interface import Implementation
from shared.reference.step import train_step
from shared.spec import SYSTEMS, Conventions, SystemSpec
from shared.spec.streams import initial_state, latents
from shared.studies.optimum import (
    APART,
    SAME,
    Labels,
    jensen_shannon,
    least_loss,
    optimum,
    stratified,
)
from tests import ROOT
from tests.apparatus import errata
from tests.apparatus.errata import FIGURES
from tests.tiers import SLOW_IN_TF_AND_JAX

DOCUMENT = (ROOT / "docs" / "losses.md").read_text("utf-8")
EXACT = 1e-12  # float64 values of at most 100: measured 2e-15
MLP = SYSTEMS["mlp28"].replace(width=4, latent_dim=10, batch_size=4)
NEEDS_TORCH = "this erratum is about what PyTorch does"
NEEDS_TF = "this erratum is about what TensorFlow does"


def logit(p: float | np.ndarray) -> Any:
    return np.log(p) - np.log1p(-np.asarray(p))


def images(spec: SystemSpec, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    """Return one batch of real images and of latents."""
    draw = np.random.default_rng(0)
    real = draw.uniform(-1.0, 1.0, (spec.batch_size, *spec.image_shape))
    return real.astype(dtype), latents(spec, 0, 0, spec.batch_size).astype(dtype)


def started(implementation: Implementation, spec: SystemSpec, dtype: str) -> Any:
    """Return a state with the seed's weights."""
    return implementation.create(spec, seed=0, dtype=dtype)


# --- [A] ------------------------------------------------------------------------------------------


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


# --- [B] ------------------------------------------------------------------------------------------


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
        found = errata.twice_generator_criterion(Labels(real, fake), generator)
        m, k = (real + fake) / 2.0 - generator, (real - fake) / 2.0
        assert found == pytest.approx(2.0 * m**2 + k**2 * divergence, abs=EXACT)
        fulfils = real - generator == 1 and real - fake == 2
        assert (found == pytest.approx(divergence, abs=EXACT)) == fulfils


def test_erratum_05_the_pull_at_equilibrium(implementation: Implementation) -> None:
    """D* is the mean of the labels there: G rests under the paper's condition, not under ours."""
    for (real, fake, generator), pull in (((1.0, -1.0, 0.0), 0.0), ((1.0, 0.0, 1.0), -0.5)):
        score = optimum(SAME, np.array([0.3]), Labels(real, fake))
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


# --- [C] ------------------------------------------------------------------------------------------


def mean_after_a_step(tf: Any, updates: str, has_block: bool) -> tuple[float, int]:
    """Return a running mean after one step of a TF1 graph, and how many UPDATE_OPS there were.

    The batch's mean is 3 and the momentum 0.9. `updates` is "collected", the default of TF1's
    layers, or "in place", what `updates_collections=None` asked for.
    """
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        x = tf.constant([[2.0], [4.0]])
        running = v1.Variable(0.0)
        weight = v1.Variable(1.0)
        mean = tf.reduce_mean(x)
        update = v1.assign_sub(running, 0.1 * (running - mean))
        if updates == "collected":
            v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, update)
            y = x - mean
        else:
            with tf.control_dependencies([update]):
                y = x - tf.identity(mean)
        collected = v1.get_collection(v1.GraphKeys.UPDATE_OPS)
        with tf.control_dependencies(collected if has_block else []):
            loss = tf.reduce_sum(tf.square(weight * y))
            step = v1.train.GradientDescentOptimizer(0.1).minimize(loss, var_list=[weight])
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            session.run(step)
            return float(session.run(running)), len(collected)


def test_erratum_07_in_place_updates_need_no_update_ops() -> None:
    tf = pytest.importorskip("tensorflow", reason=NEEDS_TF)
    found = {
        (updates, has_block): mean_after_a_step(tf, updates, has_block)
        for updates in ("in place", "collected")
        for has_block in (True, False)
    }
    assert found["in place", True] == found["in place", False] == (pytest.approx(0.3), 0)
    # Where they are collected the block is everything: this is what it was made for.
    assert found["collected", True] == (pytest.approx(0.3), 1)
    assert found["collected", False] == (0.0, 1)


def test_erratum_07_the_layer_of_the_text_is_gone() -> None:
    tf = pytest.importorskip("tensorflow", reason=NEEDS_TF)
    assert not hasattr(tf, "contrib")
    assert not hasattr(tf.compat.v1.layers, "batch_normalization")


@SLOW_IN_TF_AND_JAX
def test_erratum_07_our_statistics_move_with_the_step(implementation: Implementation) -> None:
    spec = SYSTEMS["conv28"].replace(width=4, latent_dim=10, batch_size=4)
    state = started(implementation, spec, "float32")
    before = implementation.export_state(state)
    implementation.train_step(state, *images(spec, "float32"))
    after = implementation.export_state(state)
    statistics = [n for n in before if n.endswith(("/mean", "/var"))]
    assert statistics
    for name in statistics:
        assert not np.array_equal(after[name], before[name]), name


def test_erratum_08_the_fivefold_rate_is_one_system_s() -> None:
    ratios = {name: errata.learning_rate_ratio(name) for name in SYSTEMS}
    assert ratios.pop("conv28") == pytest.approx(5.0, rel=1e-15)
    assert set(ratios.values()) == {1.0}
    adam = SYSTEMS["conv28"]
    rates = adam.discriminator_optimizer.learning_rate, adam.generator_optimizer.learning_rate
    assert rates == (2e-4, 1e-3)  # Chen et al. 2016, appendix C


def test_erratum_09_a_probability_is_no_logit(implementation: Implementation) -> None:
    certain = implementation.loss("bce", np.array([1.0]), np.array([0.0]))  # D = 1 and D = 0
    assert float(certain.generator) == pytest.approx(math.log(2.0), abs=EXACT)
    floor = errata.probability_as_logit(1.0) + math.log(2.0)
    assert float(certain.discriminator) == pytest.approx(floor, abs=EXACT)
    won = implementation.loss("bce", np.array([1.0]), np.array([1.0]))  # D takes the fake for real
    assert float(won.generator) == pytest.approx(errata.probability_as_logit(1.0), abs=EXACT)
    right = implementation.loss("bce_probs", np.array([1.0]), np.array([0.0]))
    assert float(right.discriminator) == 0.0
    right = implementation.loss("bce", np.array([40.0]), np.array([-40.0]))
    assert float(right.discriminator) < 1e-15


def test_erratum_09_of_ones_like_only_the_shape_counts() -> None:
    tf = pytest.importorskip("tensorflow", reason=NEEDS_TF)
    logits = tf.constant([[-1.0], [2.0]])
    entropy = tf.nn.sigmoid_cross_entropy_with_logits
    losses = [
        entropy(labels=tf.ones_like(shape), logits=logits).numpy()
        for shape in (tf.sigmoid(logits), logits)
    ]
    assert np.array_equal(*losses)
    assert entropy(labels=[1.0], logits=[1.0]).numpy()[0] == pytest.approx(0.3133, abs=5e-5)


# --- [D] ------------------------------------------------------------------------------------------


def test_erratum_10_minus_the_logarithm_not_its_reciprocal(implementation: Implementation) -> None:
    values = implementation.loss("bce_probs", np.array([0.5]), np.array([0.5]))
    assert float(values.generator) == pytest.approx(-math.log(0.5), abs=EXACT)
    assert float(values.generator) == pytest.approx(math.log(1.0 / 0.5), abs=EXACT)
    assert errata.one_over_the_log(0.5) == pytest.approx(-1.4427, abs=5e-5)
    # The term of weight 0, at D = 0: 0 · (1 / log 1) is 0 · ∞. Ours leaves it out.
    with np.errstate(invalid="ignore"):
        assert math.isnan(np.float64(0.0) * errata.one_over_the_log(1.0))
    at_zero = implementation.loss("bce_probs", np.array([0.0]), np.array([0.0]))
    assert float(at_zero.discriminator) == pytest.approx(100.0, abs=EXACT)  # real 100, fake 0


def test_erratum_11_the_chain_of_equalities_is_false(implementation: Implementation) -> None:
    for d, values, slopes in ((0.5, (0.6931, -0.6931), (-2.0, -2.0)), (0.1, None, (-10.0, -1.11))):
        score, p = np.array([logit(d)]), np.array([d])
        left = implementation.loss("bce_probs", p, p)
        right = implementation.loss("minimax", score, score)
        # By the chain rule the derivative by D is that by the logit over D(1 - D).
        by_d = float(right.generator_fake_gradient[0]) / (d * (1.0 - d))
        assert float(left.generator_fake_gradient[0]) == pytest.approx(slopes[0], abs=0.005)
        assert by_d == pytest.approx(slopes[1], abs=0.005)
        if values:
            found = float(left.generator), float(right.generator)
            assert found == pytest.approx(values, abs=5e-5)


# --- [E] ------------------------------------------------------------------------------------------


def test_erratum_12_the_loss_is_not_0_at_equilibrium(implementation: Implementation) -> None:
    half = np.zeros(3)
    values = implementation.loss("bce", half, half)
    assert float(values.discriminator) == pytest.approx(math.log(4.0), abs=EXACT)
    assert float(values.generator) == pytest.approx(math.log(2.0), abs=EXACT)
    assert least_loss("bce", SAME) == pytest.approx(math.log(4.0), abs=EXACT)
    # Where D can tell the two apart its loss is smaller, and 0 where it tells them perfectly.
    divergence = jensen_shannon(APART)
    assert least_loss("bce", APART) == pytest.approx(math.log(4.0) - 2.0 * divergence, abs=EXACT)
    perfect = implementation.loss("bce", np.full(3, 40.0), np.full(3, -40.0))
    assert float(perfect.discriminator) < 1e-15
    assert float(perfect.generator) == pytest.approx(40.0, abs=EXACT)


def test_erratum_13_a_column_is_no_image() -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    network = torch.nn.Sequential(torch.nn.Linear(784, 256), torch.nn.Linear(256, 1))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        network(torch.ones(64, 1))
    assert network(torch.ones(64, 784)).shape == (64, 1)


def test_erratum_13_ours_refuses_a_column(implementation: Implementation) -> None:
    state = started(implementation, MLP, "float32")
    before = implementation.export_state(state)
    column, (real, z) = np.ones((4, 1), np.float32), images(MLP, "float32")
    error = {"pytorch": RuntimeError, "tf": ValueError, "jax": TypeError}[implementation.name]
    with pytest.raises(error):
        implementation.discriminate(state, column)
    with pytest.raises(error):
        implementation.train_step(state, column, z)
    after = implementation.export_state(state)
    assert all(np.array_equal(after[name], before[name]) for name in before)
    assert math.isfinite(implementation.train_step(state, real, z)["discriminator_loss"])


def torch_pair(torch: Any) -> tuple[Any, Any, Any, Any]:
    """Return a generator, a discriminator with two layers, its optimizer and the loss."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = torch.nn.Linear(3, 5)
        discriminator = torch.nn.Sequential(
            torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)
        )
    optimizer = torch.optim.SGD(discriminator.parameters(), lr=0.1)
    return generator, discriminator, optimizer, torch.nn.BCEWithLogitsLoss()


@pytest.mark.parametrize(
    ("retain_graph", "message"),
    [
        (False, "backward through the graph a second time"),
        (True, "modified by an inplace operation"),
    ],
)
def test_erratum_14_one_graph_does_not_do_for_both(retain_graph: bool, message: str) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    generator, discriminator, optimizer, loss = torch_pair(torch)
    scores = discriminator(generator(torch.ones(2, 3)))
    loss(scores, torch.zeros(2, 1)).backward(retain_graph=retain_graph)
    optimizer.step()
    with pytest.raises(RuntimeError, match=message):
        loss(scores, torch.ones(2, 1)).backward()


def test_erratum_14_a_fresh_pass_does() -> None:
    """And its gradient is the one through the discriminator as it is after its step."""
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    generator, discriminator, optimizer, loss = torch_pair(torch)
    fake = generator(torch.ones(2, 3))
    loss(discriminator(fake.detach()), torch.zeros(2, 1)).backward()
    optimizer.step()
    loss(discriminator(fake), torch.ones(2, 1)).backward()
    received = generator.weight.grad.clone()
    alone = loss(discriminator(generator(torch.ones(2, 3))), torch.ones(2, 1))
    (expected,) = torch.autograd.grad(alone, [generator.weight])
    assert received.abs().max() > 0
    assert torch.allclose(received, expected, rtol=1e-6, atol=0)


def test_erratum_15_without_detach_the_generator_learns_from_the_wrong_loss() -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    for detached in (False, True):
        generator, discriminator, _, loss = torch_pair(torch)
        fake = generator(torch.ones(2, 3))
        loss(discriminator(fake.detach() if detached else fake), torch.zeros(2, 1)).backward()
        if detached:
            assert generator.weight.grad is None
        else:
            assert generator.weight.grad.abs().max() > 0


def largest_difference(received: dict, expected: dict) -> float:
    """Return the largest relative L2 error of a generator's gradient."""
    return max(
        float(np.linalg.norm(received[n] - e) / np.linalg.norm(e))
        for n, e in expected.items()
        if n.startswith("generator/")
    )


def step_gradients(**deviation: Any) -> dict[str, np.ndarray]:
    arrays = {n: a.astype(np.float64) for n, a in initial_state(MLP, 0).items()}
    return train_step(MLP, arrays, *images(MLP), Conventions().replace(**deviation)).gradients


def test_erratum_15_ours_is_detached(implementation: Implementation) -> None:
    """Measured: 1e-15 from the detached step, and 2.5 from the other one."""
    state = started(implementation, MLP, "float64")
    implementation.import_state(
        state,
        {
            n: a if n.endswith("/step") else a.astype(np.float64)
            for n, a in initial_state(MLP, 0).items()
        },
    )
    received = implementation.gradients(state, *images(MLP))
    assert largest_difference(received, step_gradients()) < EXACT
    assert largest_difference(received, step_gradients(detach_fake=False)) > 1.0


# --- the document ---------------------------------------------------------------------------------

ENTRY = re.compile(r'^### <a id="erratum-(\d\d)"></a>Erratum (\d+)[ ,].*$', re.MULTILINE)


def entries() -> dict[int, str]:
    """Return the text of every erratum by its number."""
    section = DOCUMENT.split("\n## Errata\n")[1].split("\n## ")[0]
    found = list(ENTRY.finditer(section))
    ends = [match.start() for match in found[1:]] + [len(section)]
    return {int(m[1]): section[m.end() : end] for m, end in zip(found, ends, strict=True)}


def test_every_erratum_has_an_entry_and_a_test() -> None:
    assert list(entries()) == list(range(1, 16))
    names = [name for name in globals() if name.startswith("test_erratum_")]
    for number, text in entries().items():
        own = [name for name in names if name.startswith(f"test_erratum_{number:02}_")]
        assert own, number
        linked = re.findall(r"`(test_erratum_\w+)`", text)
        assert linked, number
        assert set(linked) <= set(own), number
        assert "](../tests/docs/test_errata.py)" in text


@pytest.mark.parametrize(
    ("number", "what"), [(n, what) for n, figures in FIGURES.items() for what in figures]
)
def test_the_figures_of_the_document_are_the_measured_ones(number: int, what: str) -> None:
    measure: Callable[[], float]
    measure, text = FIGURES[number][what]
    digits = len(text.partition(".")[2])
    assert float(measure()) == pytest.approx(float(text), abs=0.5000001 * 10.0**-digits)
    # As a number of its own: 0.3133 is not found in 10.3133 or 0.31330.
    written = text.replace("-", "[-−]")
    assert re.search(rf"(?<![\d.\-−]){written}(?![\d]|\.\d)", entries()[number]), text
