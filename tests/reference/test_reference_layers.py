"""Every layer of the reference against finite differences, SciPy and closed forms."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import correlate2d

from shared.reference import layers

# Central differences in float64: truncation h² and rounding eps/h balance near h = 1e-5, at about
# 1e-10 relative for smooth functions of order 1.
STEP = 1e-5
BOUND = 1e-6


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def check_gradients(
    function: Callable[..., np.ndarray],
    inputs: list[np.ndarray],
    found: tuple[np.ndarray, dict[str, np.ndarray]],
    dy: np.ndarray,
) -> None:
    """Compare every gradient with the central difference along five random directions."""
    gradients = (found[0], *found[1].values())
    assert len(gradients) == len(inputs)
    for position, gradient in enumerate(gradients):
        assert gradient.shape == inputs[position].shape
        for trial in range(5):
            direction = random(*inputs[position].shape, seed=trial + 1)
            values = []
            for sign in (1.0, -1.0):
                moved = list(inputs)
                moved[position] = inputs[position] + sign * STEP * direction
                values.append(np.sum(function(*moved) * dy))
            numeric = (values[0] - values[1]) / (2 * STEP)
            analytic = np.sum(gradient * direction)
            assert abs(numeric - analytic) <= BOUND * max(abs(analytic), 1e-3), position


@pytest.mark.parametrize("alignment", ["centred", "before", "after"])
@pytest.mark.parametrize(("stride", "padding", "size"), [(2, 1, 8), (1, 0, 4), (2, 1, 9)])
def test_conv(stride: int, padding: int, size: int, alignment: str) -> None:
    x, kernel = random(2, size, size + 2, 3), random(4, 4, 3, 5)
    y, backward = layers.conv_forward(x, kernel, stride, padding, alignment)
    shift = layers.PADDING_SHIFT[alignment] if padding else 0
    pads = (padding + shift, padding - shift)
    padded = np.pad(x, ((0, 0), pads, pads, (0, 0)))
    for n in range(2):
        for o in range(5):
            full = sum(
                correlate2d(padded[n, :, :, i], kernel[:, :, i, o], "valid") for i in range(3)
            )
            np.testing.assert_allclose(y[n, :, :, o], full[::stride, ::stride], atol=1e-13)
    dy = random(*y.shape, seed=9)
    check_gradients(
        lambda x, k: layers.conv_forward(x, k, stride, padding, alignment)[0],
        [x, kernel],
        backward(dy),
        dy,
    )


@pytest.mark.parametrize("alignment", ["centred", "before", "after"])
@pytest.mark.parametrize(("stride", "padding", "size"), [(2, 1, 4), (1, 0, 1), (2, 1, 5)])
def test_conv_transpose(stride: int, padding: int, size: int, alignment: str) -> None:
    x, kernel = random(2, size, size, 3), random(4, 4, 5, 3)
    y, backward = layers.conv_transpose_forward(x, kernel, stride, padding, alignment)
    expected_size = stride * (size - 1) + 4 - 2 * padding
    assert y.shape == (2, expected_size, expected_size, 5)
    # It is the transpose of the conv with the same kernel: <conv(u), x> = <u, conv_transpose(x)>.
    u = random(*y.shape, seed=3)
    forward = layers.conv_forward(u, kernel, stride, padding, alignment)[0]
    assert np.sum(forward * x) == pytest.approx(np.sum(u * y), rel=1e-12)
    dy = random(*y.shape, seed=9)
    check_gradients(
        lambda x, k: layers.conv_transpose_forward(x, k, stride, padding, alignment)[0],
        [x, kernel],
        backward(dy),
        dy,
    )


def test_conv_transpose_of_one_pixel_is_the_kernel() -> None:
    kernel = random(4, 4, 2, 1)
    y, _ = layers.conv_transpose_forward(np.ones((1, 1, 1, 1)), kernel, 1, 0)
    np.testing.assert_array_equal(y[0], kernel[..., 0])


def test_dense() -> None:
    x, kernel, bias = random(4, 6), random(6, 3), random(3)
    y, backward = layers.dense_forward(x, kernel, bias)
    np.testing.assert_allclose(y, np.einsum("ni,io->no", x, kernel) + bias, rtol=1e-14)
    dy = random(4, 3, seed=9)
    check_gradients(
        lambda *inputs: layers.dense_forward(*inputs)[0],
        [x, kernel, bias],
        backward(dy),
        dy,
    )


@pytest.mark.parametrize("shape", [(4, 3, 3, 2), (8, 5)])
def test_batch_norm_in_training_mode(shape: tuple[int, ...]) -> None:
    x, scale, bias = 3 + 2 * random(*shape), random(shape[-1], seed=1), random(shape[-1], seed=2)
    y, backward, mean, variance = layers.batch_norm_forward(x, scale, bias, 1e-5)
    axes = tuple(range(x.ndim - 1))
    np.testing.assert_allclose(mean, x.mean(axes), rtol=1e-14)
    np.testing.assert_allclose(variance, x.var(axes), rtol=1e-13)
    # The output's mean is the bias; its variance scale² · var / (var + eps).
    np.testing.assert_allclose(y.mean(axes), bias, atol=1e-13)
    np.testing.assert_allclose(y.var(axes), scale**2 * variance / (variance + 1e-5), rtol=1e-12)
    dy = random(*shape, seed=9)
    check_gradients(
        lambda *inputs: layers.batch_norm_forward(*inputs, 1e-5)[0],
        [x, scale, bias],
        backward(dy),
        dy,
    )


def test_batch_norm_that_divides_by_the_variance() -> None:
    x, scale, bias = 3 + 2 * random(8, 5), random(5, seed=1), random(5, seed=2)
    y, backward, *_ = layers.batch_norm_forward(x, scale, bias, 1e-5, "variance")
    expected = scale * (x - x.mean(0)) / (x.var(0) + 1e-5) + bias
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)
    dy = random(8, 5, seed=9)
    check_gradients(
        lambda *inputs: layers.batch_norm_forward(*inputs, 1e-5, "variance")[0],
        [x, scale, bias],
        backward(dy),
        dy,
    )


def test_batch_norm_in_inference_mode() -> None:
    x, scale, bias = random(4, 3, 3, 2), random(2, seed=1), random(2, seed=2)
    mean, variance = random(2, seed=3), np.array([0.5, 2.0])
    own = (mean, variance)
    y, backward, *_ = layers.batch_norm_forward(x, scale, bias, 1e-5, running=own)
    np.testing.assert_allclose(y, scale * (x - mean) / np.sqrt(variance + 1e-5) + bias, rtol=1e-13)
    dy = random(4, 3, 3, 2, seed=9)
    check_gradients(
        lambda *inputs: layers.batch_norm_forward(*inputs, 1e-5, running=own)[0],
        [x, scale, bias],
        backward(dy),
        dy,
    )


def test_running_statistics_by_hand() -> None:
    # The batch 1, 2, 3, 6: mean 3, biased variance 3.5, unbiased 14/3.
    running = (np.array([1.0]), np.array([1.0]))
    batch = (np.array([3.0]), np.array([3.5]))
    mean, variance = layers.running_statistics(running, batch, 4, 0.1, "unbiased")
    assert mean[0] == pytest.approx(0.9 + 0.3, rel=1e-15)
    assert variance[0] == pytest.approx(0.9 + 0.1 * 14 / 3, rel=1e-15)
    _, variance = layers.running_statistics(running, batch, 4, 0.1, "biased")
    assert variance[0] == pytest.approx(0.9 + 0.35, rel=1e-15)


@pytest.mark.parametrize(
    "forward",
    [
        layers.relu_forward,
        lambda x: layers.leaky_relu_forward(x, 0.2),
        layers.tanh_forward,
        layers.sigmoid_forward,
        layers.flatten_forward,
        lambda x: layers.flatten_forward(x, "chw"),
    ],
    ids=["relu", "leaky_relu", "tanh", "sigmoid", "flatten", "flatten_chw"],
)
def test_elementwise_gradients(forward: Callable) -> None:
    x = random(3, 2, 2, 4)
    x = np.where(np.abs(x) < 10 * STEP * 5, 0.1, x)  # away from the kinks
    y, backward = forward(x)
    dy = random(*y.shape, seed=9)
    check_gradients(lambda x: forward(x)[0], [x], backward(dy), dy)


def test_activations_at_known_points() -> None:
    x = np.array([-2.0, 0.0, 3.0])
    np.testing.assert_array_equal(layers.relu_forward(x)[0], [0, 0, 3])
    np.testing.assert_array_equal(layers.leaky_relu_forward(x, 0.2)[0], [-0.4, 0, 3])
    ones = np.ones(3)
    for gradient_at_zero, expected in (("slope", [0.2, 0.2, 1]), ("one", [0.2, 1, 1])):
        _, backward = layers.leaky_relu_forward(x, 0.2, gradient_at_zero)
        np.testing.assert_array_equal(backward(ones)[0], expected)
    np.testing.assert_array_equal(layers.relu_forward(x)[1](ones)[0], [0, 0, 1])
    np.testing.assert_array_equal(layers.sigmoid(np.array([-1e4, 0.0, 1e4])), [0, 0.5, 1])


def test_flatten_orders() -> None:
    x = np.arange(12.0).reshape(1, 2, 2, 3)
    assert layers.flatten_forward(x)[0][0].tolist() == list(range(12))
    assert layers.flatten_forward(x, "chw")[0][0].tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
