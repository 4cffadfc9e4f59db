"""Traps of one framework's own layers: padding, slopes, batch norm and dtypes."""

import importlib
import warnings
from collections.abc import Callable

import numpy as np

from shared.reference.comparison import relative_l2
from tests.docs.trap import Trap, random, tensorflow


def same_padding_on_odd_sizes() -> float:
    """PyTorch's k4s2p1 makes 4x4 of 9x9, `same` 5x5: another shape."""
    torch = importlib.import_module("torch")
    tf, _ = tensorflow()
    kernel = np.ones((4, 4, 1, 1))
    theirs = tf.nn.conv2d(np.ones((1, 9, 9, 1)), kernel, 2, "SAME").shape[1:3]
    ours = torch.nn.functional.conv2d(
        torch.ones(1, 1, 9, 9), torch.ones(1, 1, 4, 4), stride=2, padding=1
    ).shape[2:]
    return 0.0 if tuple(theirs) == tuple(ours) else np.inf


def same_padding_on_even_sizes() -> float:
    torch = importlib.import_module("torch")
    tf, _ = tensorflow()
    x, kernel = random(2, 8, 8, 3), random(4, 4, 3, 5)
    theirs = tf.nn.conv2d(x, kernel, 2, "SAME").numpy()
    ours = torch.nn.functional.conv2d(
        torch.tensor(x.transpose(0, 3, 1, 2)),
        torch.tensor(kernel.transpose(3, 2, 0, 1)),
        stride=2,
        padding=1,
    )
    return relative_l2(theirs.transpose(0, 3, 1, 2), ours.numpy())


def jax_conv_transpose_padding(padding: int) -> float:
    """Return the error of a conv-transpose k4s2p1 with some explicit padding."""
    jax = importlib.import_module("jax")
    from shared.reference.layers import conv_transpose_forward

    x, kernel = random(2, 4, 4, 3), random(4, 4, 5, 3)
    expected = conv_transpose_forward(x, kernel, 2, 1)[0]
    with jax.enable_x64(True):
        received = np.array(
            jax.lax.conv_transpose(
                x,
                kernel,
                (2, 2),
                ((padding, padding), (padding, padding)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                transpose_kernel=True,
            )
        )
    return relative_l2(received, expected) if received.shape == expected.shape else np.inf


def tf_leaky_relu(stock: bool) -> float:
    tf, _ = tensorflow()
    from tf_impl.layers import leaky_relu

    x = random(1000)
    function = (lambda v: tf.nn.leaky_relu(v, 0.2)) if stock else leaky_relu
    return relative_l2(function(tf.constant(x)).numpy(), np.where(x > 0, x, 0.2 * x))


def jax_leaky_relu_gradient_at_zero(stock: bool) -> float:
    jax = importlib.import_module("jax")
    from jax_impl.layers import leaky_relu

    function = (lambda v: jax.nn.leaky_relu(v, 0.2)) if stock else leaky_relu
    with jax.enable_x64(True):
        return abs(float(jax.grad(function)(0.0)) / 0.2 - 1.0)


def batch_norm_variance(layer: Callable[[np.ndarray], np.ndarray], dtype: str) -> float:
    """Return the error of a fresh layer's running variance after one batch of 64 numbers."""
    x = random(64, 3).astype(dtype)
    expected = 0.9 + 0.1 * np.var(x.astype(np.float64), axis=0, ddof=1)
    return relative_l2(layer(x), expected)


def running_average(debiased: bool) -> float:
    """Return the error of running means and variances after four batches."""
    torch = importlib.import_module("torch")
    layer, batches = torch.nn.BatchNorm1d(3).double(), random(4, 8, 3)
    hidden = np.zeros((2, 3)) if debiased else np.stack([np.zeros(3), np.ones(3)])
    for batch in batches:
        layer(torch.tensor(batch))
        hidden = 0.9 * hidden + 0.1 * np.stack([batch.mean(0), batch.var(0, ddof=1)])
    received = hidden / (1 - 0.9 ** len(batches)) if debiased else hidden
    return relative_l2(received, torch.stack([layer.running_mean, layer.running_var]).numpy())


def keras_running_variance(stock: bool) -> float:
    tf, keras = tensorflow()
    from tf_impl.layers import BatchNorm

    if stock:
        layer = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype="float64")
    else:
        layer = BatchNorm(3, dtype="float64")

    def variance(x: np.ndarray) -> np.ndarray:
        layer(tf.constant(x), training=True)
        return (layer.moving_variance if stock else layer.var).numpy()

    return batch_norm_variance(variance, "float64")


def nnx_batch_norm(stock: str) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return a function of a batch that gives the output and the running variance."""
    jax = importlib.import_module("jax")
    nnx = importlib.import_module("flax.nnx")
    from jax_impl.layers import BatchNorm

    def run(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with jax.enable_x64(x.dtype == np.float64):
            if stock == "ours":
                layer = BatchNorm(x.shape[-1], dtype=x.dtype)
                y = layer(jax.numpy.asarray(x))
            else:
                layer = nnx.BatchNorm(
                    x.shape[-1],
                    momentum=0.9,
                    epsilon=1e-5,
                    use_running_average=False,
                    use_fast_variance=stock == "fast",
                    dtype=x.dtype,
                    param_dtype=x.dtype,
                    rngs=nnx.Rngs(0),
                )
                with warnings.catch_warnings():
                    # JAX warns of the cast to NNX' float32 buffers: a trap of its own below.
                    warnings.simplefilter("ignore", FutureWarning)
                    y = layer(jax.numpy.asarray(x))
            return np.array(y), np.array(layer.var[...])

    return run


def nnx_fast_variance(stock: str) -> float:
    """Return the error of the normalised batch in float32, mean 100 and deviation 0.1."""
    x = (100 + 0.1 * random(4096, 1)).astype(np.float32)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5)
    return relative_l2(nnx_batch_norm(stock)(x)[0], expected)


def nnx_buffer_dtype(stock: str) -> float:
    """Return the error of the running MEAN after a float64 batch: a float32 buffer rounds it."""
    jax = importlib.import_module("jax")
    nnx = importlib.import_module("flax.nnx")
    from jax_impl.layers import BatchNorm

    x = random(64, 3)
    with jax.enable_x64(True):
        if stock == "ours":
            layer = BatchNorm(3, dtype=np.float64)
            layer(jax.numpy.asarray(x))
        else:
            layer = nnx.BatchNorm(
                3, momentum=0.9, use_running_average=False, dtype=np.float64, rngs=nnx.Rngs(0)
            )
            with warnings.catch_warnings():
                # JAX warns of the cast to the float32 buffer, which is the trap.
                warnings.simplefilter("ignore", FutureWarning)
                layer(jax.numpy.asarray(x))
        mean = np.array(layer.mean[...])
    return relative_l2(mean, 0.1 * x.mean(0))


def keras_layer_dtype(stock: bool) -> float:
    """A Keras layer without a dtype computes float64 data in float32."""
    tf, keras = tensorflow()
    x, kernel = random(2, 8, 8, 3), random(4, 4, 3, 5)
    layer = keras.layers.Conv2D(5, 4, 2, "same", use_bias=False, dtype=None if stock else "float64")
    layer.build(x.shape)
    layer.set_weights([kernel])
    return relative_l2(layer(tf.constant(x)).numpy(), tf.nn.conv2d(x, kernel, 2, "SAME").numpy())


def tf_cast_of_a_python_number(stock: bool) -> float:
    tf, _ = tensorflow()
    number = tf.cast(0.999, tf.float64) if stock else tf.constant(0.999, tf.float64)
    return abs(float(number) / 0.999 - 1.0)


LAYER_TRAPS = [
    Trap("same-padding", same_padding_on_odd_sizes, same_padding_on_even_sizes, framework="tf"),
    Trap(
        "batch-norm-debias",
        lambda: running_average(True),
        lambda: running_average(False),
        framework="pytorch",
    ),
    Trap(
        "conv-transpose-padding",
        lambda: jax_conv_transpose_padding(1),
        lambda: jax_conv_transpose_padding(2),
        framework="jax",
    ),
    Trap(
        "leaky-relu-float32-slope",
        lambda: tf_leaky_relu(True),
        lambda: tf_leaky_relu(False),
        framework="tf",
    ),
    Trap(
        "leaky-relu-gradient-at-zero",
        lambda: jax_leaky_relu_gradient_at_zero(True),
        lambda: jax_leaky_relu_gradient_at_zero(False),
        framework="jax",
    ),
    Trap(
        "keras-running-variance",
        lambda: keras_running_variance(True),
        lambda: keras_running_variance(False),
        framework="tf",
    ),
    Trap(
        "nnx-running-variance",
        lambda: batch_norm_variance(lambda x: nnx_batch_norm("centred")(x)[1], "float64"),
        lambda: batch_norm_variance(lambda x: nnx_batch_norm("ours")(x)[1], "float64"),
        framework="jax",
    ),
    Trap(
        "nnx-fast-variance",
        lambda: nnx_fast_variance("fast"),
        lambda: nnx_fast_variance("ours"),
        bound=1e-4,  # float32: the mean of 100 is known to 4e-6, the deviation is 0.1
        framework="jax",
    ),
    Trap(
        "nnx-buffer-dtype",
        lambda: nnx_buffer_dtype("stock"),
        lambda: nnx_buffer_dtype("ours"),
        framework="jax",
    ),
    Trap(
        "keras-layer-dtype",
        lambda: keras_layer_dtype(True),
        lambda: keras_layer_dtype(False),
        framework="tf",
    ),
    Trap(
        "tf-cast",
        lambda: tf_cast_of_a_python_number(True),
        lambda: tf_cast_of_a_python_number(False),
        framework="tf",
    ),
]
