"""The systems of docs/examples against networks written in the framework that each comes from.

Images, scores and every gradient of a random projection of them, in float64, from the same weights.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from shared.files.system_file import read_system
from shared.fixtures.network import representative_state
from shared.reference.network import backward, forward
from shared.spec import NETWORKS, Conventions, NetworkName, SystemSpec
from tests import ROOT

EXAMPLES = ROOT / "docs" / "examples"
BOUND = 1e-10
BATCH = 3
# Trainable parameters of both networks.
COUNTS = {
    "d2l": (3_576_704, 2_765_696),
    "gan_jax": (747_841, 134_721),
    "infogan": (6_652_481, 6_559_169),
    "jax_dcgan": (3_574_656, 2_755_840),
    "keras_gan": (856_065, 392_321),
    "keras_io": (3_979_651, 404_801),
    "tensorflow_tutorial": (2_305_472, 212_865),
}


def example(name: str, width: int) -> SystemSpec:
    return read_system(EXAMPLES / f"{name}.toml").replace(width=width, batch_size=BATCH)


def required(actual: np.ndarray, expected: np.ndarray, what: str) -> None:
    assert actual.shape == expected.shape, what
    difference = np.linalg.norm(actual - expected) / max(np.linalg.norm(expected), 1e-9)
    assert difference <= BOUND, (what, difference)


def test_every_example_has_the_parameters_of_its_source() -> None:
    counts = {
        path.stem: tuple(read_system(path).parameter_count(network) for network in NETWORKS)
        for path in sorted(EXAMPLES.glob("*.toml"))
    }
    assert counts == COUNTS


@pytest.mark.parametrize("name", COUNTS)
def test_an_example_has_forty_lines(name: str) -> None:
    assert len((EXAMPLES / f"{name}.toml").read_text().splitlines()) <= 40


Network = Callable[[dict[str, Any], Any], Any]


def check(
    spec: SystemSpec,
    network: NetworkName,
    differentiated: Callable[[dict, np.ndarray, np.ndarray], tuple[np.ndarray, dict]],
) -> None:
    """Compare a network's output and its gradients, under the names of the spec."""
    arrays = {n: a.astype(np.float64) for n, a in representative_state(spec, 0).items()}
    draw = np.random.default_rng(1)
    shape = (BATCH, spec.latent_dim) if network == "generator" else (BATCH, *spec.image_shape)
    x = draw.standard_normal(shape)
    run = forward(spec, network, arrays, x, Conventions(), training=True)
    dy = draw.standard_normal(run.output.shape)
    _, expected = backward(network, run, dy)
    own = {n.split("/", 1)[1]: arrays[n] for n in spec.parameters(network) if n in expected}
    output, gradients = differentiated(own, x, dy)
    required(output, run.output, "output")
    cancelled = 1e-10 * max(np.linalg.norm(g) for g in expected.values())
    for name, gradient in expected.items():
        if np.linalg.norm(gradient) > cancelled:  # not a bias that a batch normalisation takes away
            required(gradients[name.split("/", 1)[1]], gradient, name)


# --- PyTorch -------------------------------------------------------------------------------------


def d2l_generator(p: dict[str, Any], z: Any) -> Any:
    from torch.nn import functional as F

    x = z[:, :, None, None]
    for i in range(1, 6):
        kernel = p[f"conv_transpose_{i}/kernel"].permute(3, 2, 0, 1).contiguous()
        x = F.conv_transpose2d(x, kernel, None, *((1, 0) if i == 1 else (2, 1)))
        x = F.relu(normalised(x, p, i)) if i < 5 else x.tanh()
    return x


def d2l_discriminator(p: dict[str, Any], x: Any) -> Any:
    from torch.nn import functional as F

    for i in range(1, 5):
        x = F.conv2d(x, p[f"conv_{i}/kernel"].permute(3, 2, 0, 1).contiguous(), None, 2, 1)
        x = F.leaky_relu(normalised(x, p, i), 0.2)
    return F.conv2d(x, p["conv_5/kernel"].permute(3, 2, 0, 1).contiguous()).flatten()


def normalised(x: Any, p: dict[str, Any], i: int) -> Any:
    from torch.nn import functional as F

    scale, bias = p[f"batch_norm_{i}/scale"], p[f"batch_norm_{i}/bias"]
    return F.batch_norm(x, None, None, scale, bias, training=True)


@pytest.mark.parametrize(
    ("network", "function"),
    [("generator", d2l_generator), ("discriminator", d2l_discriminator)],
)
def test_d2l_in_pytorch(network: NetworkName, function: Network) -> None:
    torch = pytest.importorskip("torch")

    def differentiated(p: dict, x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, dict]:
        own = {name: torch.tensor(a, requires_grad=True) for name, a in p.items()}
        is_images = x.ndim == 4
        y = function(own, torch.tensor(x.transpose(0, 3, 1, 2) if is_images else x))
        y = y if is_images else y.permute(0, 2, 3, 1)
        y.backward(torch.tensor(dy))
        return y.detach().numpy(), {name: t.grad.numpy() for name, t in own.items()}

    check(example("d2l", 2), network, differentiated)


# --- Keras on TensorFlow -------------------------------------------------------------------------


def keras_layers(name: str, network: NetworkName, width: int) -> Iterator[Any]:
    """Yield a network's layers as its source has them, with their features at a narrow width."""
    import tensorflow as tf
    from keras import layers as L

    def leaky(slope: float) -> Any:  # Keras' own holds the slope as a float32
        return L.Activation(lambda x: tf.where(x > 0, x, slope * x))

    def conv(features: int, size: int, strides: int = 1, **options: Any) -> Any:
        return L.Conv2D(features, size, strides, padding="same", **options)

    def up(features: int, size: int, strides: int = 1, **options: Any) -> Any:
        return L.Conv2DTranspose(features, size, strides, padding="same", **options)

    w, is_generator = width, network == "generator"
    if name == "tensorflow_tutorial" and is_generator:
        yield from (L.Dense(49 * 4 * w, use_bias=False), L.BatchNormalization())
        yield from (leaky(0.3), L.Reshape((7, 7, 4 * w)))
        yield from (up(2 * w, 5, use_bias=False), L.BatchNormalization(), leaky(0.3))
        yield from (up(w, 5, 2, use_bias=False), L.BatchNormalization(), leaky(0.3))
        yield up(1, 5, 2, use_bias=False, activation="tanh")
    elif name == "tensorflow_tutorial":
        yield from (conv(w, 5, 2), leaky(0.3), conv(2 * w, 5, 2), leaky(0.3))
        yield from (L.Flatten(), L.Dense(1))
    elif name == "keras_io" and is_generator:
        yield from (L.Dense(128 * w), L.Reshape((8, 8, 2 * w)))
        for features in (2 * w, 4 * w, 8 * w):
            yield from (up(features, 4, 2), leaky(0.2))
        yield conv(3, 5, activation="sigmoid")
    elif name == "keras_io":
        for features in (w, 2 * w, 2 * w):
            yield from (conv(features, 4, 2), leaky(0.2))
        yield from (L.Flatten(), L.Dense(1, activation="sigmoid"))
    elif name == "keras_gan" and is_generator:
        yield from (L.Dense(196 * w, activation="relu"), L.Reshape((7, 7, 4 * w)))
        for features in (4 * w, 2 * w):
            yield from (L.BatchNormalization(momentum=0.8), L.UpSampling2D())
            yield conv(features, 3, activation="relu")
        yield from (L.BatchNormalization(momentum=0.8), conv(1, 3, activation="tanh"))
    elif name == "keras_gan":
        yield from (conv(w, 3, 2), leaky(0.2), conv(2 * w, 3, 2))
        yield from (L.ZeroPadding2D(((0, 1), (0, 1))), leaky(0.2))
        yield from (L.BatchNormalization(momentum=0.8), conv(4 * w, 3, 2), leaky(0.2))
        yield from (L.BatchNormalization(momentum=0.8), conv(8 * w, 3), leaky(0.2))
        yield from (L.Flatten(), L.Dense(1, activation="sigmoid"))
    elif is_generator:
        yield from (L.Dense(16 * w), L.BatchNormalization(epsilon=1e-5), L.ReLU())
        yield from (L.Dense(98 * w), L.BatchNormalization(epsilon=1e-5), L.ReLU())
        yield from (L.Reshape((7, 7, 2 * w)), up(w, 4, 2), L.BatchNormalization(epsilon=1e-5))
        yield from (L.ReLU(), up(1, 4, 2, activation="sigmoid"))
    else:
        yield from (conv(w, 4, 2), leaky(0.01), conv(2 * w, 4, 2))
        yield from (L.BatchNormalization(epsilon=1e-5), leaky(0.01), L.Flatten())
        yield from (L.Dense(16 * w), L.BatchNormalization(epsilon=1e-5), leaky(0.01))
        yield L.Dense(1, activation="sigmoid")


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", sorted(COUNTS.keys() - {"d2l", "gan_jax", "jax_dcgan"}))
def test_an_example_in_keras(name: str, network: NetworkName) -> None:
    tf, keras = pytest.importorskip("tensorflow"), pytest.importorskip("keras")

    def differentiated(p: dict, x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, dict]:
        layers = list(keras_layers(name, network, 2))
        model = keras.Sequential([keras.Input(x.shape[1:]), *layers])
        for variable, array in zip(model.trainable_variables, p.values(), strict=True):
            variable.assign(array)
        with tf.GradientTape() as tape:
            y = model(tf.constant(x), training=True)
            total = tf.reduce_sum(tf.reshape(y, dy.shape) * dy)
        found = tape.gradient(total, [v.value for v in model.trainable_variables])
        gradients = {n: g.numpy() for n, g in zip(p, found, strict=True)}
        return tf.reshape(y, dy.shape).numpy(), gradients

    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")
    try:
        check(example(name, 2), network, differentiated)
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])
