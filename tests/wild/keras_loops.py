"""Public loops of TensorFlow, in TensorFlow: stock Keras layers, losses and optimizers.

Each loop is a step of two networks with two optimizers. It is an adapter twice: by hand, as one
writes it without this project's help, and by `ModulePair`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from shared.interface import METRIC_NAMES, Array, Arrays
from shared.spec import NETWORKS, SYSTEMS, Layer, NetworkName, SystemSpec, optimizer_name
from tests.wild.case import AdapterCase
from tests.wild.loops import KERAS, KERAS_IO, LEARNOPENCV, custom
from tf_impl.module_pair import ModulePair

_OF_A_LAYER = {
    layers.BatchNormalization: {
        "scale": "gamma",
        "bias": "beta",
        "mean": "moving_mean",
        "var": "moving_variance",
    }
}
_LOGITS = keras.losses.BinaryCrossentropy(from_logits=True)


@contextmanager
def computing_in(dtype: str) -> Iterator[None]:
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


@dataclass
class Loop:
    """What of a loop its two adapters share."""

    step: Callable[..., tuple[Any, Any, Any]]
    batch_norm: dict[str, float] = field(default_factory=dict)
    adam: dict[str, float] = field(default_factory=lambda: {"beta_1": 0.5})

    def network(self, spec: SystemSpec, name: NetworkName) -> keras.Sequential:
        shape = (spec.latent_dim,) if name == "generator" else spec.image_shape
        model = keras.Sequential([keras.Input(shape)])
        for layer in spec.layers(name):
            if layer.kind == "flatten" and layer is spec.layers(name)[-1]:
                continue  # scores are [batch, 1] or [batch, 1, 1, 1]
            model.add(self.layer(layer))
        return model

    def layer(self, own: Layer) -> keras.Layer:
        has_bias = any(p.name == "bias" for p in own.parameters)
        match own.kind:
            case "conv" | "conv_transpose":
                kind = layers.Conv2D if own.kind == "conv" else layers.Conv2DTranspose
                sizes = own.output_shape[-1], 4, own.stride, "same" if own.padding else "valid"
                return kind(*sizes, use_bias=has_bias)
            case "dense":
                return layers.Dense(own.output_shape[-1], use_bias=has_bias)
            case "batch_norm":
                return layers.BatchNormalization(**self.batch_norm)
            case "leaky_relu":
                return layers.LeakyReLU(negative_slope=0.2)
            case "reshape":
                return layers.Reshape(own.output_shape)
            case "flatten":
                return layers.Flatten()
        return layers.Activation(own.kind)

    def optimizer(self, spec: SystemSpec, name: NetworkName) -> keras.Optimizer:
        rate = getattr(spec, f"{name}_optimizer").learning_rate
        return keras.optimizers.Adam(**{"learning_rate": rate} | self.adam)


@dataclass
class State:
    spec: SystemSpec
    networks: dict[str, keras.Sequential]
    optimizers: dict[str, keras.Optimizer]
    step: Callable[..., Any]
    dtype: str

    def variables(self) -> Iterator[tuple[str, keras.Variable]]:
        for name, model in self.networks.items():
            yield from self.weights(name)
            paths = {v.path: k for k, v in self.weights(name)}
            adam = self.optimizers[name]
            yield f"{name}_optimizer/step", adam.iterations
            for variable, m, v in zip(
                model.trainable_variables, adam._momentums, adam._velocities, strict=True
            ):
                yield optimizer_name(paths[variable.path], "m"), m
                yield optimizer_name(paths[variable.path], "v"), v

    def weights(self, name: NetworkName) -> Iterator[tuple[str, keras.Variable]]:
        own = [x for x in self.networks[name].layers if x.weights]
        named = [layer for layer in self.spec.layers(name) if layer.parameters]
        for layer, keras_layer in zip(named, own, strict=True):
            for p in layer.parameters:
                key = _OF_A_LAYER.get(type(keras_layer), {}).get(p.name, p.name)
                yield f"{name}/{layer.name}/{p.name}", getattr(keras_layer, key)


class ByHand:
    """An adapter as one writes it: what the loop itself has, and no more."""

    loop: Loop
    name = "a loop of TensorFlow"

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> State:
        keras.utils.set_random_seed(seed)
        with computing_in(dtype):
            networks = {name: self.loop.network(spec, name) for name in NETWORKS}
            optimizers = {name: self.loop.optimizer(spec, name) for name in NETWORKS}
            for name, adam in optimizers.items():
                adam.build(networks[name].trainable_variables)
        return State(spec, networks, optimizers, tf.function(self.loop.step), dtype)

    def import_state(self, state: State, arrays: Arrays) -> None:
        for name, variable in state.variables():
            variable.assign(arrays[name])

    def export_state(self, state: State) -> Arrays:
        return {name: np.array(variable) for name, variable in state.variables()}

    def generate(self, state: State, latents: Array, *, training: bool = False) -> Array:
        return self._without_traces(state, "generator", latents, training)

    def discriminate(self, state: State, images: Array, *, training: bool = False) -> Array:
        return self._without_traces(state, "discriminator", images, training).reshape(-1)

    def _without_traces(self, state: State, name: NetworkName, x: Array, training: bool) -> Array:
        before = state.networks[name].get_weights()
        y = state.networks[name](tf.constant(x), training=training).numpy()
        state.networks[name].set_weights(before)
        return y

    def train_step(self, state: State, real_images: Array, latents: Array) -> dict[str, float]:
        parts = *state.networks.values(), *state.optimizers.values()
        with computing_in(state.dtype):
            losses = state.step(*parts, tf.constant(real_images), tf.constant(latents))
        values = [float(x) for x in losses]
        if len(values) == 2:  # of D it has one loss
            return dict(zip(("discriminator_loss", "generator_loss"), values, strict=True))
        return dict(zip(METRIC_NAMES, (values[0] + values[1], *values), strict=True))


def by_pair(loop: Loop, spec: SystemSpec) -> ModulePair:
    networks = [loop.network(spec, name) for name in NETWORKS]
    adams = [loop.optimizer(spec, name) for name in NETWORKS]
    return ModulePair(*networks, *adams, latent_shape=(spec.latent_dim,), step=loop.step)


# --- the loops ----------------------------------------------------------------------------------


def _apply(tape: tf.GradientTape, loss: Any, network: keras.Model, adam: keras.Optimizer) -> None:
    variables = network.trainable_variables
    adam.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))


def lynnho(g: Any, d: Any, g_adam: Any, d_adam: Any, real: Any, z: Any) -> tuple[Any, Any, Any]:
    """Two functions: D on a batch, then G on new latents."""
    batch = tf.shape(real)[0]
    with tf.GradientTape() as tape:
        fake = g(z[:batch], training=True)
        real_logit, fake_logit = d(real, training=True), d(fake, training=True)
        real_loss = _LOGITS(tf.ones_like(real_logit), real_logit)
        fake_loss = _LOGITS(tf.zeros_like(fake_logit), fake_logit)
        loss = real_loss + fake_loss
    _apply(tape, loss, d, d_adam)
    with tf.GradientTape() as tape:
        logit = d(g(z[batch:], training=True), training=True)
        g_loss = _LOGITS(tf.ones_like(logit), logit)
    _apply(tape, g_loss, g, g_adam)
    return real_loss, fake_loss, g_loss


def learnopencv(
    g: Any, d: Any, g_adam: Any, d_adam: Any, real: Any, z: Any
) -> tuple[Any, Any, Any]:
    """D on real, then on fake images; G run again."""
    bce = keras.losses.BinaryCrossentropy()
    with tf.GradientTape() as tape:
        fake = g(z, training=True)
        scores = d(real, training=True)
        real_loss = bce(tf.ones_like(scores), scores)
    _apply(tape, real_loss, d, d_adam)
    with tf.GradientTape() as tape:
        scores = d(fake, training=True)
        fake_loss = bce(tf.zeros_like(scores), scores)
    _apply(tape, fake_loss, d, d_adam)
    with tf.GradientTape() as tape:
        scores = d(g(z, training=True), training=True)
        g_loss = bce(tf.ones_like(scores), scores)
    _apply(tape, g_loss, g, g_adam)
    return real_loss, fake_loss, g_loss


def keras_io(g: Any, d: Any, g_adam: Any, d_adam: Any, real: Any, z: Any) -> tuple[Any, Any]:
    """Fake and real images as one batch, whose labels are 1 for the fake ones; no half."""
    batch = tf.shape(real)[0]
    combined = tf.concat([g(z, training=True), real], axis=0)
    labels = tf.concat([tf.ones((batch, 1)), tf.zeros((batch, 1))], axis=0)
    with tf.GradientTape() as tape:
        predictions = tf.reshape(d(combined, training=True), [-1, 1])
        loss = _LOGITS(labels, predictions)
    _apply(tape, loss, d, d_adam)
    with tf.GradientTape() as tape:
        predictions = tf.reshape(d(g(z, training=True), training=True), [-1, 1])
        g_loss = _LOGITS(tf.zeros((batch, 1)), predictions)
    _apply(tape, g_loss, g, g_adam)
    return loss, g_loss


def tutorial(g: Any, d: Any, g_adam: Any, d_adam: Any, real: Any, z: Any) -> tuple[Any, Any, Any]:
    """TensorFlow's tutorial: one pass of each network, two tapes, both updates at the end."""
    with tf.GradientTape() as g_tape, tf.GradientTape() as d_tape:
        fake = g(z, training=True)
        real_output, fake_output = d(real, training=True), d(fake, training=True)
        g_loss = _LOGITS(tf.ones_like(fake_output), fake_output)
        real_loss = _LOGITS(tf.ones_like(real_output), real_output)
        fake_loss = _LOGITS(tf.zeros_like(fake_output), fake_output)
        d_loss = real_loss + fake_loss
    _apply(g_tape, g_loss, g, g_adam)
    _apply(d_tape, d_loss, d, d_adam)
    return real_loss, fake_loss, g_loss


def by_hand(loop: Loop) -> type:
    return type("Port", (ByHand,), {"loop": loop})


INITIAL = {"initializer": "keras_default"}
IN_FLOAT64 = INITIAL | {
    "leaky_relu_slope": float(np.float32(0.2)),
    "adam_correction": "float32",
}
SIMULTANEOUS = {
    "batch_norm_statistics": "not_in_generator_step",
    "update_order": "simultaneous",
    "generator_learning_rate": 1e-4,
    "discriminator_learning_rate": 1e-4,
    "adam_beta1": 0.9,
}

LOOPS = (
    AdapterCase(
        "LynnHo/DCGAN-LSGAN-WGAN-GP-DRAGAN-Tensorflow-2",
        "Keras' batch norm and Adam, losses in float32",
        by_hand(Loop(lynnho)),
        KERAS | IN_FLOAT64 | {"dtype": "float32"},
        system=custom(biases=True, generator_batch="new_latents"),
    ),
    AdapterCase(
        "spmallick/learnopencv, TensorFlow",
        "D on real, then on fake, epsilon 0.8, momentum 0.1, Keras' Adam",
        by_hand(Loop(learnopencv, {"epsilon": 0.8, "momentum": 0.1})),
        LEARNOPENCV | IN_FLOAT64,
        system=SYSTEMS["dcgan64"].replace(loss="bce_probs"),
    ),
    AdapterCase(
        "keras-team/keras-io, dcgan_overriding_train_step.py",
        "one batch under one mean, labels exchanged, Keras' batch norm and Adam",
        by_hand(Loop(keras_io, adam={"learning_rate": 3e-4})),
        KERAS_IO | IN_FLOAT64 | {"dtype": "float32"},
        system="dcgan64",
    ),
    AdapterCase(
        "tensorflow/docs, dcgan.ipynb",
        "two tapes over one pass of each network, Keras' batch norm and Adam, a rate of its own",
        partial(by_pair, Loop(tutorial, adam={"learning_rate": 1e-4})),
        KERAS | INITIAL | SIMULTANEOUS,
        system=SYSTEMS["dcgan64"].replace(image_size=32),  # 64 take twice as long
        dtype="float32",
    ),
)
