"""The reference scales of shared.reference.comparison, by hand and with planted faults."""

import numpy as np
import pytest

from shared.fixtures.network import representative_state
from shared.reference.comparison import drifts, gradient_differences, state_differences
from shared.spec import SYSTEMS, SystemSpec, state_shapes

SPEC = SYSTEMS["conv28"].replace(width=2, latent_dim=3)


def state(spec: SystemSpec = SPEC) -> dict[str, np.ndarray]:
    return {n: a.astype(np.float64) for n, a in representative_state(spec, 0).items()}


def test_every_array_is_measured_by_one_of_the_two() -> None:
    arrays = state()
    determined, drifting = (
        state_differences(SPEC, arrays, arrays),
        drifts(SPEC, arrays, arrays, 1),
    )
    assert set(determined).isdisjoint(drifting)
    assert determined.keys() | drifting.keys() == state_shapes(SPEC).keys()
    assert set(determined.values()) == set(drifting.values()) == {0.0}


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("generator/dense_1/kernel", "generator/dense_1/kernel"),
        ("generator/batch_norm_1/bias", "generator/batch_norm_1/bias"),
        ("discriminator/conv_1/bias", "discriminator/conv_1/bias"),  # nothing cancels it
        ("discriminator/dense_4/bias", "discriminator/dense_4/kernel"),  # one number
        (
            "discriminator_optimizer/dense_4/bias/v",
            "discriminator_optimizer/dense_4/kernel/v",
        ),
        ("generator_optimizer/dense_1/bias/m", "generator_optimizer/dense_1/kernel/m"),
    ],
)
def test_what_a_difference_is_measured_against(name: str, scale: str) -> None:
    expected = state()
    actual = expected | {name: expected[name] + 0.25}
    size = np.linalg.norm(np.full_like(expected[name], 0.25))
    found = state_differences(SPEC, actual, expected)
    assert found.pop(name) == pytest.approx(size / np.linalg.norm(expected[scale]))
    assert set(found.values()) == {0.0}


def test_the_gradient_of_a_cancelled_bias_is_measured_against_its_kernels() -> None:
    bias, kernel = "generator/conv_transpose_3/bias", "generator/conv_transpose_3/kernel"
    expected = {bias: np.array([1e-18, 0.0]), kernel: np.array([3.0, 4.0])}
    actual = expected | {bias: np.array([-1e-16, 0.0])}
    found = gradient_differences(SPEC, actual, expected)
    assert found == {bias: pytest.approx(1.01e-16 / 5), kernel: 0.0}
    # A gradient that is really there is seen.
    actual = expected | {bias: np.array([0.1, 0.0])}
    assert gradient_differences(SPEC, actual, expected)[bias] == pytest.approx(0.02)


def test_a_drift_is_in_learning_rates_and_steps() -> None:
    expected = state()
    for name, rate in (("generator/dense_2/bias", 1e-3), ("discriminator/batch_norm_3/mean", 2e-4)):
        moved = expected[name].copy()
        moved[1] += 5 * rate
        found = drifts(SPEC, expected | {name: moved}, expected, 10)
        assert found.pop(name) == pytest.approx(0.5)
        assert set(found.values()) == {0.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["generator/dense_1/kernel", "discriminator/dense_4/bias"])
def test_what_is_not_finite_is_never_within_a_bound(name: str, bad: float) -> None:
    expected = state()
    assert not state_differences(SPEC, expected | {name: expected[name] * bad}, expected)[name] < 1


def test_a_counter_that_differs_is_infinitely_far() -> None:
    expected = state()
    name = "generator_optimizer/step"
    assert state_differences(SPEC, expected | {name: np.array(8)}, expected)[name] == np.inf
