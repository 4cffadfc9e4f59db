"""What each layer makes of a network's inputs, for finding the first one that differs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax import nnx

from jax_impl.state import TrainState
from shared.spec import NetworkName

__all__ = ["activations"]


def activations(
    state: TrainState, network: NetworkName, inputs: jax.Array, *, training: bool = False
) -> dict[str, jax.Array]:
    """Return the output of each layer with parameters by name: NHWC, or [batch, features].

    `inputs` are latents or images as `generate` and `discriminate` take them. The state does not
    change.
    """
    found: dict[str, jax.Array] = {}
    held = state.network(network)
    module = nnx.merge(held.graph, held.parameters, held.statistics, copy=True)
    for name, layer in list(vars(module).items()):
        if isinstance(layer, nnx.Module):
            setattr(module, name, partial(_keep, found, name, layer))
    module(inputs, training=training)
    return found


def _keep(
    found: dict[str, jax.Array],
    name: str,
    layer: Callable[..., jax.Array],
    x: jax.Array,
    **options: Any,
) -> jax.Array:
    found[name] = layer(x, **options)
    return found[name]
