"""What is written for speed alone, against the reference's convolutions and their gradients."""

import ctypes
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from shared.reference import layers
from shared.spec.compute import Compute

BOUND = 1e-13
"""Of float64 sums of at most 33 · 16 = 528 products: 528 · 2^-53 = 6e-14 of the largest."""


def problem(
    transposed: bool, batch: int, decimals: int = 16
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return x, a kernel and the output's gradient, and the output and gradients of x and kernel.

    Of a convolution 6 → 4 features, 8x8 → 4x4, or of its transpose.
    """
    draw = np.random.default_rng(0).standard_normal
    shapes = (batch, 4, 4, 4), (batch, 8, 8, 6), (4, 4, 6, 4)
    small, large, kernel = (draw(shape).round(decimals) for shape in shapes)
    x, dy = (small, large) if transposed else (large, small)
    forward = layers.conv_transpose_forward if transposed else layers.conv_forward
    y, backward = forward(x, kernel, 2, 1)
    dx, of_weights = backward(dy)
    return [x, kernel, dy], [y, dx, of_weights["kernel"]]


def require_close(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= BOUND * np.abs(other).max()


@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_by_products_in_pytorch(transposed: bool) -> None:
    torch = pytest.importorskip("torch")
    from pytorch_impl import fast

    (x, kernel, dy), expected = problem(transposed, batch=3)
    inputs = [torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(kernel).permute(3, 2, 0, 1)]
    for one in inputs:
        one.requires_grad_()
    y = fast.ByProducts.apply(*inputs, transposed)
    y.backward(torch.tensor(dy).permute(0, 3, 1, 2))
    found = [y.detach().permute(0, 2, 3, 1), inputs[0].grad.permute(0, 2, 3, 1)]
    found.append(inputs[1].grad.permute(2, 3, 1, 0))
    require_close([one.numpy() for one in found], expected)


def test_deep_convolutions_are_products_in_bfloat16_on_a_cpu_alone() -> None:
    torch = pytest.importorskip("torch")
    from pytorch_impl import fast

    deep = fast.Conv(256, 8, 4, 2, 1, bias=False)
    narrow = fast.Conv(255, 8, 4, 2, 1, bias=False)
    biased = fast.Conv(256, 8, 4, 2, 1)

    def operation(layer: torch.nn.Module, enabled: bool) -> str:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = layer(torch.ones(1, layer.in_channels, 4, 4))
        assert y.dtype == (torch.bfloat16 if enabled else torch.float32)
        return type(y.grad_fn).__name__

    assert operation(deep, True) == "ByProductsBackward"
    for layer, enabled in ((deep, False), (narrow, True), (biased, True)):
        assert operation(layer, enabled) == "ConvolutionBackward0"


# 3: one slice; 19: slices of 8, 8 and 3; 33: of 9, 9, 9 and 6.
@pytest.mark.parametrize("batch", [3, 19, 33])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_by_slices_in_jax(transposed: bool, batch: int) -> None:
    jax = pytest.importorskip("jax")
    from jax_impl import fast

    (x, kernel, dy), expected = problem(transposed, batch)
    function = fast.conv_transpose if transposed else fast.conv
    with jax.enable_x64(True):
        y, gradients = jax.vjp(lambda x, k: function(x, k, 2, 1, 4), x, kernel)
        require_close([np.array(a) for a in (y, *gradients(dy))], expected)
        assert len(fast._slices(x, kernel, 4)) == {3: 1, 19: 3, 33: 4}[batch]
        assert len(fast._slices(x, kernel, 1)) == 1


@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_of_bfloat16_by_products_in_jax(
    transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    jax = pytest.importorskip("jax")
    from jax_impl import fast

    monkeypatch.setattr(fast, "MIN_FEATURES", 6)
    # Whole numbers, and so their sums: bfloat16 holds all of them up to 256.
    (x, kernel, dy), expected = problem(transposed, batch=19, decimals=0)
    assert max(np.abs(one).max() for one in expected) <= 256
    function = fast.conv_transpose if transposed else fast.conv
    inputs = (jax.numpy.asarray(one, jax.numpy.bfloat16) for one in (x, kernel, dy))
    found = _with_gradients(function, 4, *inputs)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == jax.numpy.bfloat16
        assert np.array_equal(np.array(one, float), other)


def _with_gradients(function: Callable, slices: int, x: Any, kernel: Any, dy: Any) -> tuple:
    import jax

    y, gradients = jax.vjp(lambda x, k: function(x, k, 2, 1, slices), x, kernel)
    return (y, *gradients(dy))


# Of the output and both gradients.
@pytest.mark.parametrize(
    ("dtype", "features", "slices", "convolutions", "products"),
    [
        ("bfloat16", 64, 4, 0, 3),
        ("bfloat16", 64, 1, 0, 3),  # on several CPU devices
        ("bfloat16", 63, 4, 3, 0),
        ("float32", 64, 4, 3, 0),
        ("bfloat16", 64, 0, 3, 0),  # on a GPU
        ("float32", 64, 0, 3, 0),
    ],
)
def test_what_is_a_product_in_jax(
    dtype: str, features: int, slices: int, convolutions: int, products: int
) -> None:
    jax = pytest.importorskip("jax")
    from jax_impl import fast

    shapes = (8, 8, 8, features), (4, 4, features, 2), (8, 4, 4, 2)
    inputs = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    steps = str(jax.make_jaxpr(partial(_with_gradients, fast.conv, slices))(*inputs))
    assert steps.count(" conv_general_dilated[") == convolutions
    assert steps.count(" dot_general[") == products


FAULTS_OF_CALLS = """
import resource
import jax
from jax_impl import parallel
parallel.prepare_devices("cpu", 1)
add_up = jax.jit(lambda x: jax.numpy.cumsum(x).sum())
x, faults = jax.numpy.ones(2**24), []
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    add_up(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))
"""


def test_temporary_arrays_of_jax_lie_where_those_of_the_call_before_did() -> None:
    pytest.importorskip("jax")
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("the C library is not glibc")
    command = [sys.executable, "-c", FAULTS_OF_CALLS]
    faults = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    # The sums are 64 MiB, 16,384 pages of 4 KiB; unless kept, all are new in every call. The least,
    # because another thread may still hold what the call before had.
    assert faults < 1000


@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_by_products_in_tensorflow(transposed: bool) -> None:
    tf = pytest.importorskip("tensorflow")
    from tf_impl import fast

    (x, kernel, dy), expected = problem(transposed, batch=3)
    inputs = [tf.constant(x), tf.constant(kernel)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = (fast.conv_transpose if transposed else fast.conv)(*inputs)
    gradients = tape.gradient(y, inputs, output_gradients=tf.constant(dy))
    require_close([a.numpy() for a in (y, *gradients)], expected)


@pytest.mark.parametrize("transposed", [False, True])
def test_deep_convolutions_on_a_cpu_alone_are_products_in_tensorflow(
    transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tf = pytest.importorskip("tensorflow")
    from tf_impl import fast

    kernels, name = [], "conv_transpose" if transposed else "conv"
    original = getattr(fast, name)

    def counted(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        kernels.append(kernel)
        return original(x, kernel)

    monkeypatch.setattr(fast, name, counted)
    for device, dtype, features, bias in (
        ("gpu", "mixed_bfloat16", 256, False),
        ("cpu", "float32", 255, False),
        ("cpu", "float32", 256, True),
        ("cpu", "float64", 256, False),
        ("cpu", "mixed_bfloat16", 127, False),
        ("cpu", "float32", 256, False),
        ("cpu", "mixed_bfloat16", 128, False),
    ):
        make = getattr(fast.fast_layers(dtype, Compute(device=device)), name)
        shape = (1, 4, 4, 8 if transposed else features)
        make(*((8, features) if transposed else (features, 8)), 2, 1, bias=bias)(tf.ones(shape))
    assert [kernel.dtype for kernel in kernels] == [tf.float32, tf.bfloat16]
