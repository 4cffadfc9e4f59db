"""Whole steps of public GANs in Keras, written anew in its layers, against their system files.

As in test_public_steps_torch.py; losses of TensorFlow 1 are those of its functions. In a float64
run Keras' Adam still corrects by betas in float32, which the files leave to a convention here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from shared.files.system_file import read_system
from shared.spec import NETWORKS, NetworkName, SystemSpec, optimizer_name
from tests import ROOT
from tests.docs.test_system_files import BATCH, EXAMPLES, keras_layers
from tests.docs.test_system_steps import largest_difference

PUBLIC = ROOT / "tests" / "docs" / "public"
# Measured 6e-12 at most; betas that nothing rounds: 3e-7.
BOUND = 1e-9
WIDTH = 2
IN_OURS = {"gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var"}


def norm(epsilon: float = 1e-3, momentum: float = 0.99) -> Any:
    from keras import layers as L

    return L.BatchNormalization(epsilon=epsilon, momentum=momentum)


def leaky() -> Any:
    import tensorflow as tf
    from keras import layers as L

    return L.Activation(lambda x: tf.where(x > 0, x, 0.2 * x))  # Keras' has a float32 slope


def conv(features: int, size: int = 4, strides: int = 2, bias: bool = True, **own: Any) -> Any:
    from keras import layers as L

    return L.Conv2D(features, size, strides, own.get("padding", "same"), use_bias=bias)


def up(features: int, size: int = 4, strides: int = 2, bias: bool = True, **own: Any) -> Any:
    from keras import layers as L

    return L.Conv2DTranspose(features, size, strides, own.get("padding", "same"), use_bias=bias)


def layers(name: str, network: NetworkName) -> Iterator[Any]:
    """Yield a network's layers as its source has them, with their features at a narrow width."""
    from keras import layers as L

    w, is_generator = WIDTH, network == "generator"
    if name in ("tensorflow_tutorial", "keras_gan"):
        yield from keras_layers(name, network, w)
    elif name == "keras_gan_lsgan" and is_generator:
        for i in (1, 2, 4):
            yield from (L.Dense(i * w), leaky(), norm(momentum=0.8))
        yield from (L.Dense(784, activation="tanh"), L.Reshape((28, 28, 1)))
    elif name == "keras_gan_lsgan":
        yield from (L.Flatten(), L.Dense(2 * w), leaky(), L.Dense(w), leaky(), L.Dense(1))
    elif name == "twistedw_tensorflow" and is_generator:
        yield from (L.Dense(16 * w), norm(1e-5, 0.9), L.ReLU())
        yield from (L.Dense(98 * w), norm(1e-5, 0.9), L.ReLU(), L.Reshape((7, 7, 2 * w)))
        yield from (up(w), norm(1e-5, 0.9), L.ReLU(), up(1), L.Activation("sigmoid"))
    elif name == "twistedw_tensorflow":
        yield from (conv(w), leaky(), conv(2 * w), norm(1e-5, 0.9), leaky(), L.Flatten())
        yield from (L.Dense(16 * w), norm(1e-5, 0.9), leaky(), L.Dense(1))
    elif name == "carpedm20" and is_generator:
        yield from (L.Dense(128 * w), L.Reshape((4, 4, 8 * w)), norm(1e-5, 0.9), L.ReLU())
        for i in (4, 2, 1):
            yield from (up(i * w, 5), norm(1e-5, 0.9), L.ReLU())
        yield from (up(3, 5), L.Activation("tanh"))
    elif name == "carpedm20":
        yield from (conv(w, 5), leaky())
        for i in (2, 4, 8):
            yield from (conv(i * w, 5), norm(1e-5, 0.9), leaky())
        yield from (L.Flatten(), L.Dense(1))
    elif is_generator:
        first = {"strides": 4} if "learnopencv" in name else {"strides": 1, "padding": "valid"}
        numbers = (0.8, 0.1) if "learnopencv" in name else (1e-3, 0.99)
        yield L.Reshape((1, 1, 128 if "lynnho" in name else 100))
        for i in (8, 4, 2, 1):
            yield from (up(i * w, bias=False, **first), norm(*numbers), L.ReLU())
            first = {}
        yield from (up(3, bias="lynnho" in name), L.Activation("tanh"))
    else:
        last = {"strides": 4} if "learnopencv" in name else {"strides": 1, "padding": "valid"}
        numbers = (0.8, 0.1) if "learnopencv" in name else (1e-3, 0.99)
        ends = "lynnho" in name
        yield conv(w, bias=ends)
        yield from ([norm(), leaky()] if "d2l" in name else [leaky()])
        for i in (2, 4, 8):
            yield from (conv(i * w, bias=False), norm(*numbers), leaky())
        yield from (conv(1, bias=ends, **last), L.Flatten())
        if "learnopencv" in name:
            yield L.Activation("sigmoid")


@dataclass
class Pair:
    """Both networks and their Adams, as a loop of Keras has them."""

    g: Any
    d: Any
    g_adam: Any
    d_adam: Any

    def learn(self, network: NetworkName, loss: Callable[[], Any]) -> float:
        """Make one update of a network and return the loss."""
        import tensorflow as tf

        model, adam = {
            "generator": (self.g, self.g_adam),
            "discriminator": (self.d, self.d_adam),
        }[network]
        variables = model.trainable_variables
        with tf.GradientTape() as tape:
            value = loss()
        adam.apply(tape.gradient(value, variables), variables)
        return float(value)


def of_labels(kind: str) -> Callable[[Any, float], Any]:
    """Return the loss of scores and their label, of one of Keras' or TensorFlow's losses."""
    import keras
    import tensorflow as tf

    functions = {
        "logits": keras.losses.BinaryCrossentropy(from_logits=True),
        "probabilities": keras.losses.BinaryCrossentropy(),
        "summed": keras.losses.BinaryCrossentropy(from_logits=True, reduction="sum"),
        "squares": keras.losses.MeanSquaredError(),
        "tensorflow": lambda y, x: tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(y, x)),
    }
    return lambda scores, label: functions[kind](tf.fill(scores.shape, np.float64(label)), scores)


Loop = Callable[[Pair, Callable[[Any, float], Any], Any, Any], tuple[float, float]]


def tutorial(p: Pair, loss: Callable, real: Any, z: Any) -> tuple[float, float]:
    """Both losses by one pass of each network, then both updates."""
    import tensorflow as tf

    with tf.GradientTape(persistent=True) as tape:
        fake = p.g(z, training=True)
        scores = p.d(real, training=True), p.d(fake, training=True)
        d_loss = loss(scores[0], 1.0) + loss(scores[1], 0.0)
        g_loss = loss(scores[1], 1.0)
    for model, adam, value in ((p.g, p.g_adam, g_loss), (p.d, p.d_adam, d_loss)):
        adam.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
    return float(d_loss), float(g_loss)


def both_halves(**own: Any) -> Loop:
    """D by the sum or average of both halves; then G, on images that it makes anew."""
    training, times = own.get("training", True), own.get("times", 1)

    def loop(p: Pair, loss: Callable, real: Any, z: Any) -> tuple[float, float]:
        fake = p.g(z[:BATCH], training=training)

        def of_discriminator() -> Any:
            halves = (
                loss(p.d(real, training=training), 1.0),
                loss(p.d(fake, training=training), 0.0),
            )
            return (halves[0] + halves[1]) / own.get("over", 1)

        def of_generator() -> Any:
            images = p.g(z[-BATCH:], training=training)
            return loss(p.d(images, training=training), 1.0)

        d_loss = p.learn("discriminator", of_discriminator)
        for _ in range(times):
            g_loss = p.learn("generator", of_generator)
        return d_loss, g_loss

    return loop


def one_after_another(predict: bool) -> Loop:
    """D on real, then on fake images, which `predict` makes by running statistics."""

    def loop(p: Pair, loss: Callable, real: Any, z: Any) -> tuple[float, float]:
        fake = p.g(z[:BATCH], training=not predict)
        halves = [
            p.learn("discriminator", lambda: loss(p.d(real, training=True), 1.0)),
            p.learn("discriminator", lambda: loss(p.d(fake, training=True), 0.0)),
        ]
        g_loss = p.learn(
            "generator", lambda: loss(p.d(p.g(z[-BATCH:], training=True), training=True), 1.0)
        )
        return sum(halves), g_loss

    return loop


# The loop, its loss, and Adam's rates of the generator and of the discriminator.
LOOPS: dict[str, tuple[Loop, str, float, float]] = {
    "tensorflow_tutorial": (tutorial, "logits", 1e-4, 1e-4),
    "keras_gan": (one_after_another(True), "probabilities", 2e-4, 2e-4),
    "keras_gan_lsgan": (one_after_another(True), "squares", 2e-4, 2e-4),
    "learnopencv_tensorflow": (one_after_another(False), "probabilities", 2e-4, 2e-4),
    "lynnho_tensorflow": (both_halves(), "logits", 2e-4, 2e-4),
    "d2l_tensorflow": (both_halves(training=False, over=2), "summed", 0.005, 0.005),
    "carpedm20": (both_halves(times=2), "tensorflow", 2e-4, 2e-4),
    "twistedw_tensorflow": (both_halves(), "tensorflow", 1e-3, 2e-4),
}
EPSILONS = {"carpedm20": 1e-8, "twistedw_tensorflow": 1e-8}  # TensorFlow 1's
BETAS = {"tensorflow_tutorial": 0.9}


def step_of(file: str) -> Callable[..., Any]:
    def step(spec: SystemSpec, arrays: dict, images: np.ndarray, z: np.ndarray) -> Any:
        import keras
        import tensorflow as tf

        loop, loss, *rates = LOOPS[file]
        models, adams, names = {}, {}, {}
        for network, rate, x in zip(NETWORKS, rates, (z, images), strict=True):
            own = list(layers(file, network))
            models[network] = keras.Sequential([keras.Input(x.shape[1:]), *own])
            held = [(layer, v) for layer in own for v in layer.weights]
            of_spec = [n for n in arrays if n.startswith(f"{network}/")]
            names[network] = dict(zip(of_spec, (v for _, v in held), strict=True))
            for name, variable in names[network].items():
                word = variable.path.split("/")[-1]
                assert IN_OURS.get(word, word) == name.split("/")[-1]
                variable.assign(arrays[name])
            epsilon, beta = EPSILONS.get(file, 1e-7), BETAS.get(file, 0.5)
            adams[network] = keras.optimizers.Adam(rate, beta, epsilon=epsilon)
            adams[network].build(models[network].trainable_variables)
        pair = Pair(*models.values(), *adams.values())
        losses = loop(pair, of_labels(loss), tf.constant(images), tf.constant(z))
        found = {}
        for network, adam in adams.items():
            trained = {v.path: i for i, v in enumerate(models[network].trainable_variables)}
            for name, variable in names[network].items():
                found[name] = variable.numpy()
                if variable.trainable:
                    i = trained[variable.path]
                    found[optimizer_name(name, "m")] = adam._momentums[i].numpy()
                    found[optimizer_name(name, "v")] = adam._velocities[i].numpy()
        return losses, found

    return step


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_a_public_step_in_keras(name: str) -> None:
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    folder = EXAMPLES if (EXAMPLES / f"{name}.toml").exists() else PUBLIC
    spec = read_system(folder / f"{name}.toml").replace(width=WIDTH, batch_size=BATCH)
    own = dict(spec.conventions) | {"adam_correction": "float32"}
    spec = spec.replace(conventions=tuple(sorted(own.items())))
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")
    try:
        assert largest_difference(spec, step_of(name)) <= BOUND
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])
