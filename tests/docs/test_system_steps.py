"""Whole steps of the systems of docs/examples against steps written in the framework they are from.

Losses, parameters, statistics and moments after one step, in float64, from the same state.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from shared.fixtures.network import representative_state
from shared.reference.step import train_step
from shared.spec import NETWORKS, SystemSpec, optimizer_name
from tests.docs.test_system_files import example, keras_layers

# Measured 2.4e-10 in running means, which carry biases that BN takes away and Adam moves by what
# rounding leaves of their gradients; 4e-14 in all else. The order of D's batches: 1e-2.
BOUND = 1e-9
# Measured 2.9e-7: Keras rounds betas to float32 in Adam's corrections. Real labels of 0.05: 0.3.
KERAS_BOUND = 1e-6
Step = Callable[[SystemSpec, dict[str, np.ndarray], np.ndarray, np.ndarray], Any]


def largest_difference(spec: SystemSpec, step: Step) -> float:
    """Return the largest relative L2 error of any array or loss, but of what BN takes away."""
    arrays = {n: a.astype(np.float64) for n, a in representative_state(spec, 0).items()}
    arrays |= {n: np.zeros_like(a) for n, a in arrays.items() if "_optimizer/" in n}
    draw = np.random.default_rng(1)
    images = draw.uniform(*spec.image_range, (spec.batch_size, *spec.image_shape))
    z = draw.standard_normal((spec.latent_batches * spec.batch_size, spec.latent_dim))
    expected = train_step(spec, arrays, images, z)
    losses, own = step(spec, arrays, images, z)
    wanted = {name: expected.metrics[name] for name in ("discriminator_loss", "generator_loss")}
    found = dict(zip(wanted, losses, strict=True)) | own
    wanted |= expected.arrays
    largest = {n: max(np.abs(g).max() for m, g in expected.gradients.items() if m.startswith(n))
               for n in NETWORKS}  # fmt: skip
    gone = {
        n
        for n, g in expected.gradients.items()
        if np.abs(g).max() < 1e-9 * largest[n.split("/")[0]]
    }
    gone |= {optimizer_name(n, m) for n in gone for m in ("m", "v")}
    assert found.keys() == {n for n in wanted if not n.endswith("/step")}
    return max(
        np.linalg.norm(found[n] - wanted[n]) / np.linalg.norm(wanted[n])
        for n in found.keys() - gone
    )


# --- Keras on TensorFlow -------------------------------------------------------------------------


def keras_io_step(spec: SystemSpec, arrays: dict, images: np.ndarray, z: np.ndarray) -> Any:
    import keras
    import tensorflow as tf

    models, adams = {}, {}
    for network, shape in (("generator", z.shape[1:]), ("discriminator", images.shape[1:])):
        layers = list(keras_layers("keras_io", network, 2))
        models[network] = keras.Sequential([keras.Input(shape), *layers])
        models[network].set_weights([a for n, a in arrays.items() if n.startswith(f"{network}/")])
        adams[network] = keras.optimizers.Adam(1e-4)
        adams[network].build(models[network].trainable_variables)
    generator, discriminator = models.values()
    entropy = keras.losses.BinaryCrossentropy()
    half = len(images)

    def learn(network: str, loss: Callable[[], Any]) -> float:
        variables = models[network].trainable_variables
        with tf.GradientTape() as tape:
            value = loss()
        adams[network].apply(tape.gradient(value, variables), variables)
        return float(value)

    both = tf.concat([generator(z[:half]), images], 0)
    labels = np.repeat([[1.0], [0.0]], half, axis=0)
    losses = (
        learn("discriminator", lambda: entropy(labels, discriminator(both))),
        learn(
            "generator", lambda: entropy(np.zeros((half, 1)), discriminator(generator(z[half:])))
        ),
    )
    found = {}
    for network, model in models.items():
        names = [n for n in arrays if n.startswith(f"{network}/")]
        adam = adams[network]
        for i, name in enumerate(names):
            found[name] = model.trainable_variables[i].numpy()
            found[optimizer_name(name, "m")] = adam._momentums[i].numpy()
            found[optimizer_name(name, "v")] = adam._velocities[i].numpy()
    return losses, found


@pytest.mark.slow
def test_a_step_of_keras_io(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")
    try:
        assert largest_difference(example("keras_io", 2), keras_io_step) <= KERAS_BOUND
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])


# --- flax.linen on JAX ---------------------------------------------------------------------------


def linen_layers(name: str, network: str, w: int) -> Iterator[Any]:
    from flax import linen as nn

    def norm() -> Any:
        momentum = 0.1 if name == "gan_jax" else 0.9
        return nn.BatchNorm(use_running_average=False, momentum=momentum)

    def leaky(x: Any) -> Any:
        return nn.leaky_relu(x, 0.2)

    if name == "gan_jax":
        if network == "generator":
            for features, size, stride in ((4, 3, 2), (2, 4, 1), (1, 3, 2)):
                yield nn.ConvTranspose(features * w, (size, size), (stride, stride), "VALID")
                yield from (norm(), nn.relu)
            yield from (nn.ConvTranspose(1, (4, 4), (2, 2), "VALID"), nn.tanh)
        else:
            for features in (w, 2 * w):
                yield from (nn.Conv(features, (4, 4), (2, 2), "VALID"), norm(), leaky)
            yield nn.Conv(1, (4, 4), (2, 2), "VALID")
    elif network == "generator":
        for i, features in enumerate((8, 4, 2, 1)):
            sizes = {"strides": (2, 2), "padding": "SAME"} if i else {"padding": "VALID"}
            yield nn.ConvTranspose(features * w, (4, 4), use_bias=False, **sizes)
            yield from (norm(), nn.relu)
        yield from (nn.ConvTranspose(1, (4, 4), use_bias=False), nn.tanh)
    else:
        for i, features in enumerate((1, 2, 4, 8)):
            yield nn.Conv(features * w, (4, 4), (2, 2), use_bias=False)
            yield from (norm(), leaky) if i else (leaky,)
        yield nn.Conv(1, (1, 1), (4, 4), "VALID", use_bias=False)


def turned(name: str, kernel: Any) -> Any:
    """Return a kernel as Flax has it by default, or back: of a conv transpose turned round."""
    if name.split("/")[1].startswith("conv_transpose") and name.endswith("kernel"):
        return np.flip(kernel, (0, 1)).swapaxes(2, 3)
    return kernel


def linen_step(name: str) -> Step:
    """Return a step whose generator comes first, on latents of its own."""
    import jax
    import jax.numpy as jnp
    import optax

    def run(layers: list, params: dict, statistics: dict, x: Any) -> tuple[Any, dict]:
        moved = {}
        for i, layer in enumerate(layers):
            if i not in params:
                x = layer(x)
                continue
            held = {"params": params[i]} | (
                {"batch_stats": statistics[i]} if i in statistics else {}
            )
            x, changed = layer.apply(held, x, mutable=["batch_stats"])
            moved |= {i: changed["batch_stats"]} if i in statistics else {}
        return x, moved

    def step(spec: SystemSpec, arrays: dict, images: Any, z: Any) -> Any:
        nets = {n: list(linen_layers(name, n, 2)) for n in NETWORKS}
        places: dict[str, tuple[str, int, str]] = {}
        for n, layers in nets.items():
            modules = iter([i for i, layer in enumerate(layers) if hasattr(layer, "apply")])
            for layer in (layer for layer in spec.layers(n) if layer.parameters):
                i = next(modules)
                places |= {f"{n}/{layer.name}/{p.name}": (n, i, p.name) for p in layer.parameters}
        params: dict = {n: {} for n in NETWORKS}
        statistics: dict = {n: {} for n in NETWORKS}
        for full, (n, i, own) in places.items():
            tree = statistics if own in ("mean", "var") else params
            tree[n].setdefault(i, {})[own] = jnp.asarray(turned(full, arrays[full]))
        adams = {
            n: optax.adam(spec.adam(n).learning_rate, 0.5, spec.adam(n).beta2) for n in NETWORKS
        }
        g, d = nets["generator"], nets["discriminator"]
        batch = len(images)

        def entropy(logits: Any, label: float) -> Any:
            target = jnp.full(logits.shape, label)
            return optax.sigmoid_binary_cross_entropy(logits, target).mean()

        def of_generator(p: dict) -> Any:
            fake, moved_g = run(g, p, statistics["generator"], z[batch:].reshape(batch, 1, 1, -1))
            scores, moved_d = run(d, params["discriminator"], statistics["discriminator"], fake)
            return entropy(scores, 1.0), {"generator": moved_g, "discriminator": moved_d}

        def of_discriminator(p: dict) -> Any:
            first = z[:batch].reshape(batch, 1, 1, -1)
            fake, moved_g = run(g, params["generator"], statistics["generator"], first)
            batches = {"fake": fake, "real": images}
            scores, moved_d = {}, statistics["discriminator"]
            for kind in ("fake", "real") if name == "gan_jax" else ("real", "fake"):
                scores[kind], moved_d = run(d, p, moved_d, batches[kind])
            loss = entropy(scores["real"], 1.0) + entropy(scores["fake"], 0.0)
            loss = loss / 2 if name == "gan_jax" else loss
            return loss, {"generator": moved_g, "discriminator": moved_d}

        losses, found = {}, {}
        for n, loss in (("generator", of_generator), ("discriminator", of_discriminator)):
            grad = jax.jit(jax.value_and_grad(loss, has_aux=True))
            (losses[n], statistics), gradients = grad(params[n])
            updates, state = jax.jit(adams[n].update)(gradients, adams[n].init(params[n]))
            params[n] = optax.apply_updates(params[n], updates)
            for full, (network, i, own) in places.items():
                if network == n and own not in ("mean", "var"):
                    for m, tree in (("m", state[0].mu), ("v", state[0].nu)):
                        found[optimizer_name(full, m)] = turned(full, np.array(tree[i][own]))
        for full, (n, i, own) in places.items():
            tree = statistics if own in ("mean", "var") else params
            found[full] = turned(full, np.array(tree[n][i][own]))
        return (losses["discriminator"], losses["generator"]), found

    return step


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gan_jax", "jax_dcgan"])
def test_a_step_in_linen(name: str) -> None:
    jax = pytest.importorskip("jax")
    pytest.importorskip("flax")
    with jax.enable_x64(True):
        assert largest_difference(example(name, 2), linen_step(name)) <= BOUND
