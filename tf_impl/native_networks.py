"""The networks as Keras' users have them: this package's models, their names, their loading."""

from __future__ import annotations

import os

import h5py
import keras
import numpy as np
import tensorflow as tf

from shared.convert.native_contents import NativeContents
from shared.spec import NETWORKS, SystemSpec
from tf_impl.layers import plain_layers
from tf_impl.models import create_models

__all__ = ["Networks", "native_names", "run_native"]


class Networks(keras.Model):
    """Holds both networks, so that one `.weights.h5` can.

    >>> Networks(generator=generator, discriminator=discriminator).load_weights("gan.weights.h5")
    """

    def __init__(self, **networks: keras.Model) -> None:
        super().__init__(name="networks")
        for name, network in networks.items():
            setattr(self, name, network)
        self.built = True  # as they are; Keras asks before it saves or loads


def run_native(
    path: str | os.PathLike[str], contents: NativeContents, latents: np.ndarray, images: np.ndarray
) -> dict[str, np.ndarray]:
    """Load a file as this framework's users do, around `read_native`, and run its networks.

    `contents` names the networks. Returns images under "generator" and scores [batch]
    under "discriminator", both by the running statistics.
    """
    # On the CPU, because a GPU's matrix products round float32 more coarsely.
    with tf.device("/CPU:0"):
        generator, discriminator = create_models(contents.spec, plain_layers(contents.dtype))
        models: dict[str, keras.Model] = {"generator": generator, "discriminator": discriminator}
        held = {network: models[network] for network in contents.networks}
        with h5py.File(path, "r") as file:
            is_bare = not any(network in file for network in NETWORKS)
        for model in held.values() if is_bare else [Networks(**held)]:
            model.load_weights(path)
        inputs = {"generator": latents, "discriminator": images}
        return {name: model(tf.constant(inputs[name])).numpy() for name, model in held.items()}


def native_names(spec: SystemSpec) -> dict[str, str]:
    """Return the canonical name of every array that a whole file holds, by its own name.

    "generator/conv_transpose_1/vars/0" is dataset "0" in that group: Keras numbers a layer's
    variables, first those that are trained, in the order of their creation.
    """
    return {
        f"{network}/{layer.name}/vars/{i}": f"{network}/{layer.name}/{parameter.name}"
        for network in NETWORKS
        for layer in spec.layers(network)
        for i, parameter in enumerate(layer.parameters)
    }
