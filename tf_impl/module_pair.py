"""Anybody's pair of Keras models behind `shared.interface.Implementation`: docs/systems.md."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tensorflow import Tensor

from shared.interface import Array
from shared.module_pair import PairAdapter
from shared.spec import SystemSpec
from shared.spec.compute import Compute

from .adapter import TensorFlowImplementation
from .layers import create_adam
from .state import TrainState


class Network(keras.Model):
    """A network as ours are: latents are [batch, latent_dim], scores [batch]."""

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


class ModulePair(PairAdapter, TensorFlowImplementation):
    """Two Sequential or functional models, and Keras' Adam or AdamW of each where given."""

    package, create_adam = "keras", staticmethod(create_adam)
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

    def run(self, network: keras.Model, x: Array, training: bool) -> Tensor:
        """Return what a network makes of latents or images; it stays as it is."""
        statistics = network.get_weights()
        output = network(tf.constant(x), training=training)
        network.set_weights(statistics)
        return output

    def read(self, m: Any) -> dict[str, Any] | None:
        """Return what a system file says of a layer beside its kind and arrays, None of others."""
        match m:
            case layers.Dense():
                return {}
            case layers.Conv2D() | layers.Conv2DTranspose():
                padding = "same" if m.padding == "same" else 0
                return {"stride": m.strides[0], "padding": padding}
            case layers.BatchNormalization():
                return {"epsilon": m.epsilon, "momentum": round(1 - m.momentum, 12)}
            case layers.UpSampling2D():
                return {"kind": f"upsample_{m.interpolation}", "size": m.size[0]}
        return None

    def name_layers(self, network: Network, layers: dict[str, keras.Layer]) -> None:
        """Give layers the system's names."""
        network.__dict__.update(layers)

    def state_of(self, spec: SystemSpec, dtype: str, *parts: Any) -> TrainState:
        """Return a state of copied parts, with their own weights and Adam as it starts."""
        networks, adams = parts[:2], parts[2:]
        for adam, network in zip(adams, networks, strict=True):
            if not hasattr(adam, "first_moments"):  # it is none of ours
                adam.build(network.trainable_variables)
                adam.first_moments, adam.second_moments = adam._momentums, adam._velocities
        return TrainState(spec, Compute(dtype, fast=False), "/CPU:0", *networks, *adams)
