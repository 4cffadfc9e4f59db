"""Training state ↔ arrays under canonical names (`shared.spec.state_shapes`)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Sharding

from jax_impl.parallel import put
from shared.interface import check_arrays
from shared.spec import NETWORKS, NetworkName, optimizer_name, state_shapes

if TYPE_CHECKING:
    from jax_impl.state import NetworkState, TrainState

__all__ = ["export_gradients", "export_state", "import_state"]


def export_state(state: TrainState) -> dict[str, np.ndarray]:
    """Return weights, BN statistics, Adam moments and counters by canonical name."""
    arrays: dict[str, np.ndarray] = {}
    for network in NETWORKS:
        held = state.network(network)
        adam_state = held.optimizer_state[0]
        arrays.update(_named(network, held.parameters))
        arrays.update(_named(network, held.statistics))
        for moment, values in (("m", adam_state.mu), ("v", adam_state.nu)):
            named = _named(network, values)
            arrays.update({optimizer_name(name, moment): named[name] for name in named})
        arrays[f"{network}_optimizer/step"] = np.array(adam_state.count, np.int64)
    return {name: arrays[name] for name in state_shapes(state.spec)}


def import_state(
    state: TrainState, arrays: dict[str, np.ndarray], place: jax.Device | Sharding | None = None
) -> TrainState:
    """Return a state with every array replaced, at `place` or where the state is.

    A missing, unexpected or misshapen array is a ValueError.
    """
    check_arrays(arrays, state_shapes(state.spec), "the state")
    place = state.placement[1] if place is None else place
    return dataclasses.replace(
        state,
        generator=_import_network("generator", state.generator, arrays, place),
        discriminator=_import_network("discriminator", state.discriminator, arrays, place),
    )


def export_gradients(gradients: dict[NetworkName, nnx.State]) -> dict[str, np.ndarray]:
    """Return gradients by canonical name."""
    return _named("generator", gradients["generator"]) | _named(
        "discriminator", gradients["discriminator"]
    )


def _import_network(
    network: NetworkName,
    held: NetworkState,
    arrays: dict[str, np.ndarray],
    place: jax.Device | Sharding,
) -> NetworkState:
    def placed(name: str, like: jax.Array) -> jax.Array:
        # NumPy's cast: one of JAX' own would be compiled for every shape.
        return put(np.asarray(arrays[name]).astype(like.dtype), place)

    def replaced(values: nnx.State, moment: str | None = None) -> nnx.State:
        def one(path: tuple, like: jax.Array) -> jax.Array:
            name = _name(network, path)
            return placed(name if moment is None else optimizer_name(name, moment), like)

        return jax.tree_util.tree_map_with_path(one, values)

    adam_state, *rest = held.optimizer_state
    count = placed(f"{network}_optimizer/step", adam_state.count)
    moved = optax.ScaleByAdamState(
        count, replaced(adam_state.mu, "m"), replaced(adam_state.nu, "v")
    )
    return dataclasses.replace(
        held,
        parameters=replaced(held.parameters),
        statistics=replaced(held.statistics),
        optimizer_state=(moved, *rest),
    )


def _named(network: NetworkName, values: nnx.State) -> dict[str, np.ndarray]:
    # Flax' layouts are the canonical ones: HWIO, HWOI (as layers.py keeps it) and (in, out).
    leaves = jax.tree_util.tree_leaves_with_path(values)
    return {_name(network, path): np.array(leaf) for path, leaf in leaves}


def _name(network: NetworkName, path: tuple) -> str:
    """Turn a path such as ['conv_1']['kernel'].value into a canonical name."""
    layer, parameter = (key.key for key in path[:2])
    return f"{network}/{layer}/{parameter}"
