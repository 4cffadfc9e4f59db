"""Anybody's pair of Keras models behind `shared.interface.Implementation`: docs/systems.md."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tensorflow import Tensor

from shared.framework_adapter import KEPT
from shared.interface import Array
from shared.module_pair import PairAdapter
from shared.spec import SystemSpec
from shared.spec.compute import Compute
from shared.spec.optimizers import RMSPropSpec

from .adapter import TensorFlowImplementation
from .layers import create_adam, leaky_relu
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
    """Two Sequential or functional models, and an optimizer of each where given."""

    package, create_adam = "keras", staticmethod(create_adam)
    usual_initializer = "glorot_uniform"
    conventions: ClassVar = {
        "batch_norm_running_variance": "biased",
        "adam_epsilon_placement": "before_correction",
        "adam_correction": "float32",
    }

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> TrainState:
        """Return a state of copies; ValueError for what Keras computes in float32 alone."""
        own = [o for o, _ in self.optimizers.values() if not isinstance(o, RMSPropSpec)]
        numbers = [getattr(o, name, 0.0) for o in own for name in ("momentum", "decay")]
        rounded = [f"holds {n:g}" for n in numbers if float(np.float32(n)) != n]
        held = [layer for model in self.parts[:2] for layer in model._flatten_layers()]
        if any(getattr(layer, "interpolation", "nearest") != "nearest" for layer in held):
            rounded.append("resizes images bilinearly")
        if dtype == "float64" and rounded:
            raise ValueError(f"Keras {rounded[0]} in float32; expected dtype float32")
        return super().create(spec, seed=seed, dtype=dtype)

    def copied(self, dtype: str) -> Sequence[Any]:
        """Return models and optimizers of the same settings and weights."""

        def clone(layer: keras.Layer) -> keras.Layer:
            if isinstance(layer, layers.LeakyReLU):  # whose slope is a float32
                return layers.Activation(partial(leaky_relu, slope=layer.negative_slope))
            return type(layer).from_config(layer.get_config() | {"dtype": dtype})

        before = keras.config.dtype_policy(), keras.config.floatx()
        keras.config.set_dtype_policy(dtype)  # of what a model casts its inputs to
        keras.config.set_floatx(dtype)  # of a learning rate
        networks = []
        for model in self.parts[:2]:
            inputs = keras.Input(batch_shape=model.inputs[0].shape, dtype=dtype)
            networks.append(keras.models.clone_model(model, inputs, clone))
        adams = [own and type(own).from_config(_config(own)) for own in self.parts[2:]]
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

    def settings(self, optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
        """Return an optimizer's kind and settings by Keras' names."""
        rate, kind = optimizer.get_config()["learning_rate"], type(optimizer).__name__
        kind = rate["class_name"] if isinstance(rate, dict) else kind  # no file says that one
        return _config(optimizer) | {"kind": kind.lower(), "epsilon_inside_root": True}

    def name_layers(self, network: Network, layers: dict[str, keras.Layer]) -> None:
        """Give layers the system's names."""
        network.__dict__.update(layers)

    def state_of(self, spec: SystemSpec, dtype: str, *parts: Any) -> TrainState:
        """Return a state of copied parts, with their own weights and optimizers as they start."""
        networks, optimizers = parts[:2], parts[2:]
        for own, network in zip(optimizers, networks, strict=True):
            own.build(network.trainable_variables)
            if not hasattr(own, "first_moments"):  # it is none of ours
                own.kept = {KEPT[name]: x for name, x in vars(own).items() if name in KEPT and x}
                if velocities := getattr(own, "momentums", []):
                    rate = float(own.learning_rate)
                    own.kept = {"m": [_Velocity(held, rate) for held in velocities]}
        return TrainState(spec, Compute(dtype, fast=False), "/CPU:0", *networks, *optimizers)


def _config(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Return Keras' settings with the learning rate as it was written: it holds a float32."""
    rate = float(str(np.float32(optimizer.learning_rate)))
    return optimizer.get_config() | {"learning_rate": rate}


class _Velocity:
    """Keras' velocity of SGD, -rate · ours, as a variable of ours, bit by bit as it was given."""

    def __init__(self, held: keras.Variable, rate: float) -> None:
        self.held, self.factor, self.dtype = held, -rate, held.dtype
        self.assign(held.numpy())

    def assign(self, array: Array) -> None:
        self.given = array
        self.held.assign(self.factor * array)

    def numpy(self) -> Array:
        held = self.held.numpy()
        is_given = np.array_equal(held, (self.factor * self.given).astype(held.dtype))
        return self.given if is_given else held / self.factor
