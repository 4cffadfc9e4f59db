"""The reference's Adam and whole training step."""

import numpy as np
import pytest

from shared.fixtures.network import representative_state
from shared.reference.losses import loss_values
from shared.reference.network import forward
from shared.reference.optimizers import adam_update
from shared.reference.step import Step, train_step, updated
from shared.spec import SYSTEMS, AdamSpec, Conventions, SystemSpec
from shared.spec.streams import latents

CANONICAL = Conventions()


def small(
    system: str = "dcgan64", **changes: object
) -> tuple[SystemSpec, dict, np.ndarray, np.ndarray]:
    """Return a system of width 2 with a state, real images and latents."""
    spec = SYSTEMS[system].replace(width=2, latent_dim=5, batch_size=3, **changes)
    arrays = {n: a.astype(np.float64) for n, a in representative_state(spec, 0).items()}
    real = np.random.default_rng(0).uniform(-1, 1, (3, *spec.image_shape))
    return spec, arrays, real, latents(spec, 0, 0, 3)


def test_adam_by_hand() -> None:
    """The first update is lr · g/(|g| + ε): both moments' corrections undo their factors."""
    settings = AdamSpec(learning_rate=0.1)
    gradient = np.array([1e-9, 0.5, -3.0])
    zeros = np.zeros(3)
    after, m, v = adam_update(zeros, gradient, (zeros, zeros), 1, settings, CANONICAL)
    np.testing.assert_allclose(after, -0.1 * gradient / (np.abs(gradient) + 1e-8), rtol=1e-14)
    np.testing.assert_allclose(m, 0.5 * gradient, rtol=1e-15)
    np.testing.assert_allclose(v, 0.001 * gradient**2, rtol=1e-12)


def test_adam_follows_algorithm_1_over_many_steps() -> None:
    """Against the closed form: moments are weighted sums over the whole history."""
    settings = AdamSpec(learning_rate=0.01, beta1=0.5, beta2=0.999, epsilon=1e-3)
    gradients = np.random.default_rng(0).normal(size=(50, 4))
    parameter, m, v = np.zeros(4), np.zeros(4), np.zeros(4)
    expected = np.zeros(4)
    for t in range(1, 51):
        parameter, m, v = adam_update(parameter, gradients[t - 1], (m, v), t, settings, CANONICAL)
        ages = np.arange(t - 1, -1, -1.0)[:, None]
        mean = (0.5 * 0.5**ages * gradients[:t]).sum(0) / (1 - 0.5**t)
        square = (0.001 * 0.999**ages * gradients[:t] ** 2).sum(0) / (1 - 0.999**t)
        expected -= 0.01 * mean / (np.sqrt(square) + 1e-3)
    np.testing.assert_allclose(parameter, expected, rtol=1e-11)


@pytest.mark.parametrize(
    ("placement", "formula"),
    [
        ("before_correction", lambda g: 0.1 * g / (np.abs(g) + 1e-3 / np.sqrt(0.001))),
        ("inside_root", lambda g: 0.1 * g / np.sqrt(g**2 + 1e-3)),
    ],
)
def test_other_places_for_epsilon(placement: str, formula: object) -> None:
    settings = AdamSpec(learning_rate=0.1, epsilon=1e-3)
    conventions = Conventions(adam_epsilon_placement=placement)
    g, zeros = np.array([0.01, 0.5]), np.zeros(2)
    after, _, _ = adam_update(zeros, g, (zeros, zeros), 1, settings, conventions)
    np.testing.assert_allclose(after, -formula(g), rtol=1e-12)


@pytest.mark.parametrize("loss", ["bce", "bce_probs", "minimax", "lsgan"])
@pytest.mark.parametrize("system", ["dcgan64", "dcgan64-lsgan"])
def test_gradients_of_a_step_against_finite_differences(system: str, loss: str) -> None:
    """Both networks' whole losses, along random directions in every parameter at once."""
    spec, arrays, real, z = small(system, loss=loss)
    step = train_step(spec, arrays, real, z)
    fake = forward(spec, "generator", arrays, z, CANONICAL, training=True).output
    updated = {
        name: step.arrays[name] if name.startswith("discriminator/") else array
        for name, array in arrays.items()
    }

    def discriminator_loss(moved: dict) -> float:
        scores = [
            forward(spec, "discriminator", moved, images, CANONICAL, training=True).output
            for images in (real, fake)
        ]
        return float(loss_values(spec.loss, *scores).discriminator)

    def generator_loss(moved: dict) -> float:
        images = forward(spec, "generator", moved, z, CANONICAL, training=True).output
        # Through the UPDATED discriminator.
        scores = forward(spec, "discriminator", updated, images, CANONICAL, training=True).output
        return float(loss_values(spec.loss, scores, scores).generator)

    h = 1e-6
    for network, loss_of in (("discriminator", discriminator_loss), ("generator", generator_loss)):
        draw = np.random.default_rng(1)
        for name in [n for n in step.gradients if n.startswith(f"{network}/")]:
            direction = draw.standard_normal(arrays[name].shape)
            direction /= np.linalg.norm(direction)
            values = [
                loss_of(arrays | {name: arrays[name] + sign * h * direction}) for sign in (1, -1)
            ]
            numeric = (values[0] - values[1]) / (2 * h)
            analytic = float(np.sum(step.gradients[name] * direction))
            # 1e-6 of the tensor's gradient; one direction may hold little of it.
            size = np.linalg.norm(step.gradients[name]) / np.sqrt(direction.size)
            assert abs(numeric - analytic) <= 1e-6 * abs(analytic) + 1e-5 * size, name


def test_the_step_takes_the_updates_that_adam_makes_of_its_gradients() -> None:
    spec, arrays, real, z = small()
    step = train_step(spec, arrays, real, z)
    for name, gradient in step.gradients.items():
        network, rest = name.split("/", 1)
        moments = tuple(arrays[f"{network}_optimizer/{rest}/{m}"] for m in "mv")
        after, _, _ = adam_update(arrays[name], gradient, moments, 8, AdamSpec(), CANONICAL)
        np.testing.assert_array_equal(step.arrays[name], after)
    assert step.arrays["generator_optimizer/step"] == 8


def test_running_statistics_move_once_in_g_and_three_times_in_d() -> None:
    spec, arrays, real, z = small()
    step = train_step(spec, arrays, real, z)
    generated = forward(spec, "generator", arrays, z, CANONICAL, training=True)
    updated = {n: a for n, a in step.arrays.items() if not n.endswith(("/mean", "/var"))}
    state = dict(arrays)
    for images, weights in ((real, {}), (generated.output, {}), (generated.output, updated)):
        run = forward(spec, "discriminator", state | weights, images, CANONICAL, training=True)
        state |= run.statistics
    for name, value in generated.statistics.items():
        np.testing.assert_array_equal(step.arrays[name], value)
    for name in (n for n in state if n.startswith("discriminator/") and n.endswith("/var")):
        np.testing.assert_allclose(step.arrays[name], state[name], rtol=1e-14)


def test_a_step_leaves_its_inputs_alone() -> None:
    spec, arrays, real, z = small()
    before = {name: array.copy() for name, array in arrays.items()}
    train_step(spec, arrays, real, z)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("conventions", "updates"),
    [
        ({}, [("d", False), ("d", False), ("d", True), ("g", True)]),
        ({"update_order": "generator_first"}, [("g", True), *2 * [("d", False)], ("d", True)]),
    ],
)
def test_one_update_of_each_network_is_its_last(conventions: dict, updates: list) -> None:
    spec, arrays, real, z = small(discriminator_steps=3)
    found = []

    class Watched(Step):
        def update(self, network, arrays, gradients, is_last):
            found.append((network[0], is_last))
            return super().update(network, arrays, gradients, is_last)

    images, draws = np.concatenate(3 * [real]), np.concatenate(3 * [z])
    Watched(spec, Conventions(**conventions)).run(arrays, images, draws)
    assert found == updates


@pytest.mark.parametrize(("updates", "count"), [("never", 0), ("once", 1), ("twice", 2)])
def test_so_many_updates_are_made_of_the_same_gradients(updates: str, count: int) -> None:
    spec, arrays, real, z = small()
    gradients = train_step(spec, arrays, real, z).gradients
    own = {name: g for name, g in gradients.items() if name.startswith("generator/")}
    found = updated(spec, "generator", arrays, own, Conventions(generator_updates=updates))
    expected = arrays
    for _ in range(count):
        expected = updated(spec, "generator", expected, own, CANONICAL)
    assert found["generator_optimizer/step"] == arrays["generator_optimizer/step"] + count
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
