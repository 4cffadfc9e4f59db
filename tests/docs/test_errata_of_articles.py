"""Errata 7 to 15 of docs/losses.md: the wrong version is run and is wrong, ours is right."""

import math
from typing import Any

import numpy as np
import pytest

from shared.interface import Implementation
from shared.reference.step import train_step
from shared.spec import SYSTEMS, Conventions
from shared.spec.streams import initial_state
from shared.studies.equilibrium import APART, SAME, jensen_shannon, least_loss
from tests.docs import errata
from tests.docs.errata_inputs import EXACT, MLP, NEEDS_TF, NEEDS_TORCH, images, logit, started
from tests.tiers import SLOW_IN_TF_AND_JAX

# --- [C] -------------------------------------------------------------------------------------


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


# --- [D] -------------------------------------------------------------------------------------


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


# --- [E] -------------------------------------------------------------------------------------


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
