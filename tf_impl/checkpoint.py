"""Training state ↔ arrays under canonical names (`shared.spec.state_shapes`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from shared.interface import check_arrays
from shared.spec import NETWORKS, NetworkName, optimizer_name, state_shapes

if TYPE_CHECKING:
    from tf_impl.state import TrainState

__all__ = ["export_gradients", "export_state", "import_state"]


def export_state(state: TrainState) -> dict[str, np.ndarray]:
    """Return weights, BN statistics, Adam moments and counters by canonical name."""
    variables = _variables(state)
    return {name: _to_numpy(variables[name]) for name in state_shapes(state.spec)}


def import_state(state: TrainState, arrays: dict[str, np.ndarray]) -> None:
    """Replace the whole state; a missing, unexpected or misshapen array is a ValueError."""
    check_arrays(arrays, state_shapes(state.spec), "the state")
    for name, variable in _variables(state).items():
        # Keras' layouts are the canonical ones: HWIO, HWOI and (in, out).
        dtype = tf.as_dtype(variable.dtype).as_numpy_dtype
        variable.assign(np.asarray(arrays[name]).astype(dtype))


def export_gradients(
    state: TrainState, gradients: dict[NetworkName, list[tf.Tensor]]
) -> dict[str, np.ndarray]:
    """Return gradients in the order of each network's trainable variables, by canonical name."""
    names = {
        id(_network_variable(state, name)): name
        for network in NETWORKS
        for name in state.spec.parameters(network)
    }
    return {
        names[id(variable)]: gradient.numpy()
        for network in NETWORKS
        for variable, gradient in zip(
            state.network(network).trainable_variables, gradients[network], strict=True
        )
    }


def _variables(state: TrainState) -> dict[str, keras.Variable | tf.Variable]:
    """Return every variable of the state by canonical name."""
    variables: dict[str, keras.Variable | tf.Variable] = {}
    for network in NETWORKS:
        optimizer = state.optimizer(network)
        positions = {id(v): i for i, v in enumerate(optimizer.variables_to_update)}
        for name, parameter in state.spec.parameters(network).items():
            variable = _network_variable(state, name)
            variables[name] = variable
            if parameter.trainable:
                i = positions[id(variable)]
                variables[optimizer_name(name, "m")] = optimizer.first_moments[i]
                variables[optimizer_name(name, "v")] = optimizer.second_moments[i]
        variables[f"{network}_optimizer/step"] = optimizer.step
    return variables


def _network_variable(state: TrainState, name: str) -> keras.Variable:
    network, layer, parameter = name.split("/")
    return getattr(getattr(state.network(network), layer), parameter)


def _to_numpy(variable: keras.Variable | tf.Variable) -> np.ndarray:
    return np.array(variable.numpy())
