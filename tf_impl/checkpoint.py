"""Training state ↔ arrays under canonical names (`shared.spec.state_shapes`)."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from shared.interface import Arrays, check_arrays
from shared.spec import NETWORKS, NetworkName, SystemSpec, optimizer_name, state_shapes
from shared.spec.compute import Compute
from shared.spec.streams import initial_state

from . import fast, layers, parallel
from .models import create_models
from .state import TrainState, check_compute, choose_layers, select_device


def create_train_state(
    spec: SystemSpec, compute: Compute | None = None, *, seed: int = 0, arrays: Arrays | None = None
) -> TrainState:
    """Return a state with these arrays, or a fresh one with the weights that `seed` stands for.

    The weights of a seed are the same in every framework. `compute.mode` is one of MODES, None
    for xla on one GPU and function otherwise: on a CPU, XLA's convolutions are slower. Raises
    ValueError for a `compute` that cannot be had and for arrays that do not fit.
    """
    compute = check_compute(spec, compute or Compute())
    place = select_device(compute.device)
    strategy = parallel.create_strategy(compute.device, compute.devices)
    with tf.device(place) if strategy is None else strategy.scope():
        networks = create_models(spec, choose_layers(compute))
        adam = fast.Adam if compute.fast else layers.Adam
        kind = adam if strategy is None else parallel.Adam
        adams: dict[str, Any] = {
            f"{name}_optimizer": layers.create_adam(network, spec.adam(name), kind)
            for name, network in zip(NETWORKS, networks, strict=True)
        }
        state = TrainState(spec, compute, place, *networks, **adams, strategy=strategy)
    import_state(state, initial_state(spec, seed) if arrays is None else arrays)
    return state


def export_state(state: TrainState) -> Arrays:
    """Return weights, BN statistics, Adam moments and counters by canonical name."""
    variables = _variables(state)
    own = [name for name in state_shapes(state.spec) if name in variables]
    return {name: np.array(variables[name].numpy()) for name in own}


def import_state(state: TrainState, arrays: Arrays) -> None:
    """Replace the whole state; a missing, unexpected or misshapen array is a ValueError."""
    check_arrays(arrays, state_shapes(state.spec), "the state")
    for name, variable in _variables(state).items():
        # Keras' layouts are the canonical ones: HWIO, HWOI and (in, out).
        variable.assign(np.asarray(arrays[name]).astype(variable.dtype))


def export_gradients(state: TrainState, gradients: dict[NetworkName, list[Tensor]]) -> Arrays:
    """Return the gradients of each network's parameters, in their order, by canonical name."""
    arrays: Arrays = {}
    for network in NETWORKS:
        trained = [n for n, p in state.spec.parameters(network).items() if p.trainable]
        arrays |= {n: g.numpy() for n, g in zip(trained, gradients[network], strict=True)}
    return arrays


def _variables(state: TrainState) -> dict[str, keras.Variable]:
    """Return every variable of the state by canonical name."""
    variables: dict[str, keras.Variable] = {}
    for network in NETWORKS:
        model, optimizer = state.network(network), state.optimizer(network)
        own = [layer for layer in state.spec.layers(network) if layer.parameters]
        # Keras has the variables of a layer, and their moments, in the order of the spec.
        held = [variable for layer in own for variable in getattr(model, layer.name).weights]
        kept = vars(optimizer).get("kept")  # of anybody's
        if kept is None:
            kept = {"m": optimizer.first_moments, "v": optimizer.second_moments}
        moments = zip(*kept.values(), strict=True)
        parameters = state.spec.parameters(network).items()
        for (name, parameter), variable in zip(parameters, held, strict=True):
            variables[name] = variable
            if parameter.trainable:
                names = [optimizer_name(name, m) for m in kept]
                variables |= zip(names, next(moments, ()), strict=True)
        variables[f"{network}_optimizer/step"] = optimizer.iterations
    return variables
