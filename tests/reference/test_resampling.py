"""Pooling, upsampling and padding per side, against PyTorch in float64 and finite differences."""

import numpy as np
import pytest

from shared.reference import layers
from tests.reference.test_reference_layers import check_gradients, random


def nchw(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 3, 1, 2)


def upsampled(x: np.ndarray, factor: int, aligned: bool | None) -> tuple[np.ndarray, object]:
    """Return y and its backward pass; `aligned` None is the nearest pixel."""
    rows, columns = (
        layers.nearest_matrix(n, factor)
        if aligned is None
        else layers.bilinear_matrix(n, factor, aligned)
        for n in x.shape[1:3]
    )
    return layers.separable_forward(x, rows, columns)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize(
    ("mode", "aligned"), [("nearest", None), ("bilinear", False), ("bilinear", True)]
)
def test_upsampling(mode: str, aligned: bool | None, factor: int) -> None:
    torch = pytest.importorskip("torch")
    x = random(2, 4, 5, 3)
    y, backward = upsampled(x, factor, aligned)
    expected = torch.nn.functional.interpolate(
        torch.tensor(nchw(x)), scale_factor=factor, mode=mode, align_corners=aligned
    )
    np.testing.assert_allclose(nchw(y), expected.numpy(), atol=1e-14)
    dy = random(*y.shape, seed=9)
    check_gradients(
        lambda x: upsampled(x, factor, aligned)[0],
        [x],
        backward(dy),
        dy,
    )


def test_one_pixel_is_repeated_whatever_the_corners() -> None:
    for aligned in (False, True):
        weights = layers.bilinear_matrix(1, 3, aligned)
        np.testing.assert_array_equal(weights, np.ones((3, 1)))


@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2), (3, 1)])
def test_average_pool(window: int, stride: int) -> None:
    torch = pytest.importorskip("torch")
    x = random(2, 7, 6, 3)
    matrices = [layers.averaging_matrix(n, window, stride) for n in x.shape[1:3]]
    y, backward = layers.separable_forward(x, *matrices)
    expected = torch.nn.functional.avg_pool2d(torch.tensor(nchw(x)), window, stride)
    np.testing.assert_allclose(nchw(y), expected.numpy(), atol=1e-14)
    dy = random(*y.shape, seed=9)
    check_gradients(
        lambda x: layers.separable_forward(x, *matrices)[0],
        [x],
        backward(dy),
        dy,
    )


@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 2, (0, 1))])
def test_max_pool(window: int, stride: int, padding: int | tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    x = random(2, 7, 7, 3)
    y, backward = layers.max_pool_forward(x, window, stride, padding)
    before, after = padding if isinstance(padding, tuple) else (padding, padding)
    wide = torch.nn.functional.pad(
        torch.tensor(nchw(x)), (before, after, before, after), value=-torch.inf
    )
    expected = torch.nn.functional.max_pool2d(wide, window, stride)
    np.testing.assert_array_equal(nchw(y), expected.numpy())
    dy = random(*y.shape, seed=9)
    check_gradients(
        lambda x: layers.max_pool_forward(x, window, stride, padding)[0],
        [x],
        backward(dy),
        dy,
    )


def test_of_equal_numbers_the_first_in_a_window_has_the_gradient() -> None:
    torch = pytest.importorskip("torch")
    x = torch.ones(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.max_pool2d(x, 2).sum().backward()
    _, backward = layers.max_pool_forward(np.ones((1, 4, 4, 1)), 2, 2, 0)
    found = backward(np.ones((1, 2, 2, 1)))[0]
    np.testing.assert_array_equal(nchw(found), x.grad.numpy())


def test_global_average_pool() -> None:
    x = random(2, 4, 3, 5)
    y, backward = layers.global_average_pool_forward(x)
    np.testing.assert_allclose(y, x.reshape(2, 12, 5).mean(axis=1), atol=1e-15)
    dy = random(2, 5, seed=9)
    check_gradients(
        lambda x: layers.global_average_pool_forward(x)[0],
        [x],
        backward(dy),
        dy,
    )


def of_torch_conv(x: np.ndarray, kernel: np.ndarray, padding: tuple[int, int]) -> np.ndarray:
    torch = pytest.importorskip("torch")
    wide = torch.nn.functional.pad(torch.tensor(nchw(x)), padding * 2)
    weight = torch.tensor(kernel.transpose(3, 2, 0, 1))
    return torch.nn.functional.conv2d(wide, weight, stride=2).numpy()


def of_torch_conv_transpose(
    x: np.ndarray, kernel: np.ndarray, padding: tuple[int, int]
) -> np.ndarray:
    torch = pytest.importorskip("torch")
    weight = torch.tensor(kernel.transpose(3, 2, 0, 1))
    before, after = padding
    return torch.nn.functional.conv_transpose2d(
        torch.tensor(nchw(x)), weight, stride=2, padding=before, output_padding=before - after
    ).numpy()


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("padding", [(1, 2), (0, 1), (2, 0)])
def test_conv_of_any_size_and_padding(size: int, padding: tuple[int, int]) -> None:
    x, kernel = random(2, 6, 6, 3), random(size, size, 3, 4)
    y, backward = layers.conv_forward(x, kernel, 2, padding)
    np.testing.assert_allclose(nchw(y), of_torch_conv(x, kernel, padding), atol=1e-13)
    dy = random(*y.shape, seed=9)
    check_gradients(
        lambda x, k: layers.conv_forward(x, k, 2, padding)[0],
        [x, kernel],
        backward(dy),
        dy,
    )


@pytest.mark.parametrize(("size", "padding"), [(5, (2, 1)), (3, (1, 0)), (3, (0, -1)), (1, 0)])
def test_conv_transpose_of_any_size_and_padding(size: int, padding: int | tuple[int, int]) -> None:
    """The padding after, less than before, is PyTorch's output_padding."""
    x, kernel = random(2, 4, 4, 3), random(size, size, 5, 3)
    y, backward = layers.conv_transpose_forward(x, kernel, 2, padding)
    both = padding if isinstance(padding, tuple) else (padding, padding)
    np.testing.assert_allclose(nchw(y), of_torch_conv_transpose(x, kernel, both), atol=1e-13)
    dy = random(*y.shape, seed=9)
    check_gradients(
        lambda x, k: layers.conv_transpose_forward(x, k, 2, padding)[0],
        [x, kernel],
        backward(dy),
        dy,
    )


@pytest.mark.parametrize("alignment", ["before", "after"])
@pytest.mark.parametrize("padding", [(1, 2), (0, 1)])
def test_a_shift_of_the_padding_goes_beyond_the_image(
    padding: tuple[int, int], alignment: str
) -> None:
    x, kernel = random(1, 6, 6, 2), random(4, 4, 2, 2)
    for forward in (layers.conv_forward, layers.conv_transpose_forward):
        y, backward = forward(x, kernel, 2, padding, alignment)
        assert y.shape == forward(x, kernel, 2, padding)[0].shape
        dy = random(*y.shape, seed=9)
        check_gradients(
            lambda x, k, forward=forward: forward(x, k, 2, padding, alignment)[0],
            [x, kernel],
            backward(dy),
            dy,
        )
