"""Anybody's pair of Keras models behind `shared.interface.Implementation`: docs/systems.md."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tensorflow import Tensor

from shared.interface import Array
from shared.module_pair import Call, PairAdapter
from shared.spec import SystemSpec
from shared.spec.compute import Compute

from .adapter import TensorFlowImplementation
from .layers import create_adam
from .state import TrainState


class Network(keras.Model):
    """A network as ours are: latents are [batch, latent_dim], scores [batch].

    Its layers' variables are attributes under the names of the system.
    """

    def __init__(self, network: keras.Model, latent_shape: tuple[int, ...] = ()) -> None:
        super().__init__(autocast=False)
        self.network, self.latent_shape = network, latent_shape
        self.built = True

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Return images, or scores."""
        y = self.network(self.given(x), training=training)
        return y if self.latent_shape else tf.reshape(y, [-1])

    def given(self, x: Tensor) -> Tensor:
        """Return an input as the network itself takes it."""
        return tf.reshape(x, [-1, *self.latent_shape]) if self.latent_shape else x

    def name_layers(self, weights: Mapping[str, Mapping[str, keras.Variable]]) -> None:
        """Give the layers the system's names."""
        order = ("kernel", "scale", "bias", "mean", "var")
        for name, own in weights.items():
            setattr(self, name, SimpleNamespace(weights=[own[n] for n in order if n in own]))


class ModulePair(PairAdapter, TensorFlowImplementation):
    """Two Sequential or functional models, and Keras' Adam or AdamW of each where given."""

    create_adam = staticmethod(create_adam)
    conventions: ClassVar = {
        "batch_norm_running_variance": "biased",
        "adam_epsilon_placement": "before_correction",
    }

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> TrainState:
        """Return a state of copies; ValueError for numbers that Keras rounds to float32."""
        layers = [layer for model in self.parts[:2] for layer in model._flatten_layers()]
        numbers = [getattr(layer, "negative_slope", 0.0) for layer in layers]
        numbers += [beta for adam in self.parts[2:] if adam for beta in (adam.beta_1, adam.beta_2)]
        if dtype == "float64" and (rounded := [n for n in numbers if float(np.float32(n)) != n]):
            raise ValueError(f"Keras holds {rounded[0]:g} in float32; expected dtype float32")
        return super().create(spec, seed=seed, dtype=dtype)

    def copied(self, dtype: str) -> Sequence[Any]:
        """Return models and optimizers of the same settings and weights."""

        def clone(layer: keras.Layer) -> keras.Layer:
            return type(layer).from_config(layer.get_config() | {"dtype": dtype})

        before = keras.config.dtype_policy(), keras.config.floatx()
        keras.config.set_dtype_policy(dtype)  # of what a model casts its inputs to
        keras.config.set_floatx(dtype)  # of a learning rate
        networks = []
        for model in self.parts[:2]:
            inputs = keras.Input(batch_shape=model.inputs[0].shape, dtype=dtype)
            networks.append(keras.models.clone_model(model, inputs, clone))
        adams = [adam and type(adam).from_config(adam.get_config()) for adam in self.parts[2:]]
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])
        for network, given in zip(networks, self.parts, strict=False):
            network.set_weights(given.get_weights())
        return Network(networks[0], self.latent_shape), Network(networks[1]), *adams

    def calls(self, network: keras.Model, x: Array, training: bool = False) -> tuple[list, Array]:
        """Return the layers that a network calls on latents or images, and its output."""
        found: list[Call] = []

        def keep(layer: keras.Layer, call: Callable[..., Tensor], x: Tensor, **own: Any) -> Tensor:
            activation = getattr(layer, "activation", None)
            if activation:  # is a layer of its own to us
                layer.activation = None
            y = call(x, **own)
            kind, fields, weights = _read(layer)
            shapes = {key: tuple(variable.shape) for key, variable in weights.items()}
            found.append(Call(kind, fields, weights, x.numpy(), y.numpy(), shapes))
            if activation:
                layer.activation = activation
            return activation(y) if activation else y

        parts = network._flatten_layers(include_self=False, recursive=True)
        known = [layer for layer in parts if isinstance(layer, _KNOWN)]
        statistics = network.get_weights()
        for layer in known:
            layer.call = partial(keep, layer, layer.call)
        try:
            output = network(tf.constant(x), training=training)
        finally:
            for layer in known:
                del layer.call  # the class' own method comes back
        network.set_weights(statistics)
        return found, output.numpy()

    def state_of(self, spec: SystemSpec, dtype: str, *parts: Any) -> TrainState:
        """Return a state of copied parts, with their own weights and Adam as it starts."""
        networks, adams = parts[:2], parts[2:]
        for adam, network in zip(adams, networks, strict=True):
            if not hasattr(adam, "first_moments"):  # it is none of ours
                adam.build(network.trainable_variables)
                adam.first_moments, adam.second_moments = adam._momentums, adam._velocities
        return TrainState(spec, Compute(dtype, fast=False), "/CPU:0", *networks, *adams)


_CONVOLUTIONS = (layers.Conv2D, layers.Conv2DTranspose)
_KNOWN = (*_CONVOLUTIONS, layers.Dense, layers.BatchNormalization, layers.UpSampling2D)


def _read(m: Any) -> tuple[str, dict[str, Any], dict[str, keras.Variable]]:
    """Return a layer as a system file has it, and its variables by canonical name."""
    padding = "same" if getattr(m, "padding", "") == "same" else 0
    match m:
        case layers.Conv2D() | layers.Conv2DTranspose():
            kind = "conv_transpose" if isinstance(m, layers.Conv2DTranspose) else "conv"
            sizes = {"size": m.kernel_size[0], "stride": m.strides[0], "padding": padding}
            fields = {"features": m.filters, **sizes, "bias": m.use_bias}
        case layers.Dense():
            kind, fields = "dense", {"features": m.units, "bias": m.use_bias}
        case layers.BatchNormalization():
            fields = {"epsilon": m.epsilon, "momentum": round(1 - m.momentum, 12)}
            fields |= {"scale": m.scale, "bias": m.center}
            own = {"mean": m.moving_mean, "var": m.moving_variance}
            own |= {"scale": m.gamma} if m.scale else {}
            return "batch_norm", fields, own | ({"bias": m.beta} if m.center else {})
        case _:
            return f"upsample_{m.interpolation}", {"size": m.size[0]}, {}
    return kind, fields, {"kernel": m.kernel} | ({"bias": m.bias} if m.use_bias else {})
