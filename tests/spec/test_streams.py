"""The shared random numbers."""

import numpy as np
import pytest

from shared import streams as shorter
from shared.fixtures.network import load_network_fixture
from shared.spec import SYSTEMS, Conventions, state_shapes
from shared.spec.streams import batch_order, initial_state, latents, stream

SPEC = SYSTEMS["dcgan64"].replace(width=8)


def test_the_streams_are_those_of_the_fixtures() -> None:
    # Another stream would silently start other runs from the same seed.
    fixture = load_network_fixture()
    drawn = latents(fixture.spec, fixture.seed, 0, 3).astype(np.float32)
    np.testing.assert_array_equal(drawn, fixture.latents)


def test_a_step_draws_the_same_whatever_came_before() -> None:
    first = latents(SPEC, 7, 1000, 4)
    for step in range(5):
        latents(SPEC, 7, step, 4)
    np.testing.assert_array_equal(first, latents(SPEC, 7, 1000, 4))


def test_seeds_steps_and_purposes_draw_apart() -> None:
    draws = [
        latents(SPEC, 0, 0, 4),
        latents(SPEC, 1, 0, 4),
        latents(SPEC, 0, 1, 4),
        latents(SPEC, 0, 0, 4, purpose="sample_grid"),
    ]
    for i, one in enumerate(draws):
        for other in draws[i + 1 :]:
            assert not np.isin(one, other).any()


def test_latents_have_the_distribution_of_the_spec() -> None:
    normal = latents(SPEC, 0, 0, 1000)
    # 100,000 draws: the standard error of the mean is 0.003, of the variance 0.0045.
    assert abs(normal.mean()) < 0.015
    assert abs(normal.var() - 1.0) < 0.0225
    uniform = latents(SPEC.replace(latent_distribution="uniform"), 0, 0, 1000)
    assert uniform.min() >= -1.0
    assert uniform.max() < 1.0
    assert abs(uniform.var() - 1 / 3) < 0.005


def test_an_epoch_visits_every_image_once() -> None:
    assert sorted(batch_order(0, 3, 100)) == list(range(100))
    assert batch_order(0, 3, 100).tolist() != batch_order(0, 4, 100).tolist()


def test_initial_weights_follow_the_spec() -> None:
    arrays = initial_state(SYSTEMS["dcgan64"], seed=0)
    assert {n: a.shape for n, a in arrays.items()} == state_shapes(SYSTEMS["dcgan64"])
    kernel = arrays["generator/conv_transpose_2/kernel"]  # 2,097,152 numbers
    assert abs(kernel.mean()) < 5 * 0.02 / 2097152**0.5
    assert abs(kernel.std() / 0.02 - 1) < 5 / (2 * 2097152) ** 0.5
    scale = arrays["generator/batch_norm_1/scale"]  # 512 numbers
    assert abs(scale.mean() - 1) < 5 * 0.02 / 512**0.5
    assert abs(scale.std() / 0.02 - 1) < 5 / 1024**0.5
    assert not arrays["generator/batch_norm_1/bias"].any()
    assert (arrays["generator/batch_norm_1/var"] == 1).all()
    assert not arrays["generator_optimizer/conv_transpose_2/kernel/m"].any()
    assert arrays["generator_optimizer/step"].dtype == np.int64


def test_the_linear_head_keeps_the_framework_default() -> None:
    arrays = initial_state(SYSTEMS["dcgan64-lsgan"], seed=0)
    bound = 8192**-0.5
    for name in ("kernel", "bias"):
        values = arrays[f"discriminator/dense_5/{name}"]
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.1 * bound
    # The variance of U(±b) is b²/3; 8192 draws give it to 1 %.
    assert abs(arrays["discriminator/dense_5/kernel"].var() / (bound**2 / 3) - 1) < 0.05


@pytest.mark.parametrize(
    ("initializer", "expected_std"),
    [
        ("torch_default", (3 * 16 * 128) ** -0.5),
        ("keras_default", (2 / (16 * 256 + 16 * 128)) ** 0.5),
        ("flax_default", 4096**-0.5),
    ],
)
def test_other_initializers_can_be_produced(initializer: str, expected_std: float) -> None:
    spec = SYSTEMS["dcgan64"].replace(width=32)
    arrays = initial_state(spec, 0, Conventions(initializer=initializer))
    # A conv-transpose's kernel: in 256, out 128.
    kernel = arrays["generator/conv_transpose_2/kernel"]
    assert kernel.shape == (4, 4, 128, 256)
    assert abs(kernel.std() / expected_std - 1) < 0.02
    assert (arrays["generator/batch_norm_1/scale"] == 1).all()


def test_biases_as_pytorch_draws_them() -> None:
    spec = SYSTEMS["mlp28"]
    arrays = initial_state(spec, 0, Conventions(initializer="torch_default"))
    for name, fan_in in (("generator/dense_1/bias", 100), ("discriminator/dense_1/bias", 784)):
        # U(±1/√fan_in): of 128 draws or more the largest is near the bound.
        assert 0.9 < np.abs(arrays[name]).max() * fan_in**0.5 < 1.0
    arrays = initial_state(spec, 0, Conventions(initializer="keras_default"))
    assert not arrays["generator/dense_1/bias"].any()


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True, "7"])
def test_a_seed_that_cannot_be_is_refused(seed: object) -> None:
    with pytest.raises(ValueError, match="seed must be"):
        stream(seed, "latents")  # type: ignore[arg-type]


def test_a_negative_step_is_refused() -> None:
    with pytest.raises(ValueError, match="index must not be negative, received -1"):
        latents(SPEC, 0, -1, 4)


def test_a_normal_that_is_cut_lies_within_two_deviations_of_zero() -> None:
    kernel = initial_state(SYSTEMS["conv28"], seed=0)["discriminator/conv_2/kernel"]
    assert 0.039 < np.abs(kernel).max() <= 0.04
    # The deviation of a standard normal that is cut at ±2 is 0.8796; 131072 draws.
    assert abs(kernel.mean()) < 3e-4
    assert kernel.std() == pytest.approx(0.02 * 0.8796, rel=0.01)


def test_adapters_may_import_them_by_a_shorter_name() -> None:
    for function in (batch_order, initial_state, latents, stream):
        assert getattr(shorter, function.__name__) is function
