"""What each layer makes of a network's inputs, for finding the first one that differs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from tensorflow import Tensor

from shared.spec import NetworkName

from .state import TrainState


def activations(
    state: TrainState, network: NetworkName, inputs: Tensor, *, training: bool = False
) -> dict[str, Tensor]:
    """Return the output of each layer with parameters by name: NHWC, or [batch, features].

    `inputs` are latents or images as `generate` and `discriminate` take them. The state does not
    change.
    """
    found: dict[str, Tensor] = {}
    model = state.network(network)
    statistics = [tf.identity(variable.value) for variable in model.non_trainable_variables]
    layers = {n: layer for n, layer in vars(model).items() if isinstance(layer, keras.Layer)}
    for name, layer in layers.items():
        layer.call = partial(_keep, found, name, layer.call)
    try:
        model(inputs, training=training)
    finally:
        for layer in layers.values():
            del layer.call  # the class' own method comes back
        for variable, value in zip(model.non_trainable_variables, statistics, strict=True):
            variable.assign(value)
    return found


def _keep(
    found: dict[str, Tensor], name: str, call: Callable[..., Tensor], x: Tensor, **options: Any
) -> Tensor:
    found[name] = call(x, **options)
    return found[name]
