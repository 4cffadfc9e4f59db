"""What each layer makes of a network's inputs, for finding the first one that differs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from shared.spec import NetworkName
from tf_impl.state import TrainState

__all__ = ["activations"]


def activations(
    state: TrainState, network: NetworkName, inputs: tf.Tensor, *, training: bool = False
) -> dict[str, tf.Tensor]:
    """Return the output of each layer with parameters by name: NHWC, or [batch, features].

    `inputs` are latents or images as `generate` and `discriminate` take them. The state does not
    change.
    """
    found: dict[str, tf.Tensor] = {}
    model = state.network(network)
    statistics = [tf.identity(variable.value) for variable in model.non_trainable_variables]
    for layer in model.layers:
        layer.call = partial(_keep, found, layer.name, layer.call)
    try:
        model(inputs, training=training)
    finally:
        for layer in model.layers:
            del layer.call  # the class' own method comes back
        for variable, value in zip(model.non_trainable_variables, statistics, strict=True):
            variable.assign(value)
    return found


def _keep(
    found: dict[str, tf.Tensor],
    name: str,
    call: Callable[..., tf.Tensor],
    x: tf.Tensor,
    **options: Any,
) -> tf.Tensor:
    found[name] = call(x, **options)
    return found[name]
