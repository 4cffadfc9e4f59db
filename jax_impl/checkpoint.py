"""Training state ↔ arrays under canonical names (`shared.spec.state_shapes`)."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Sharding

from shared.framework_adapter import kept_by_optax
from shared.interface import Arrays, check_arrays
from shared.spec import NETWORKS, AdamSpec, NetworkName, SystemSpec, optimizer_name, state_shapes
from shared.spec.compute import Compute
from shared.spec.streams import initial_state

from . import parallel
from .layers import Adam, create_adam
from .models import create_models
from .state import (
    Modules,
    Settings,
    TrainState,
    check_compute,
    choose_layers,
    leaves,
    select_device,
)

Parts = tuple[nnx.Module | nnx.Optimizer, ...]


def create_train_state(
    spec: SystemSpec, compute: Compute | None = None, *, seed: int = 0, arrays: Arrays | None = None
) -> TrainState:
    """Return a state with these arrays, or a fresh one with the weights that `seed` stands for.

    The weights of a seed are the same in every framework. `compute.mode` is one of MODES, None
    for jit. Raises ValueError for a `compute` that cannot be had and for arrays that do not fit.
    """
    compute = check_compute(spec, compute or Compute())

    def create() -> Parts:
        networks = create_models(spec, choose_layers(compute))
        pairs = zip(NETWORKS, networks, strict=True)
        return (*networks, *(create_adam(network, spec.adam(name)) for name, network in pairs))

    state = state_of_parts(spec, compute, create)
    import_state(state, initial_state(spec, seed) if arrays is None else arrays)
    return state


def state_of_parts(spec: SystemSpec, compute: Compute, create: Callable[[], Parts]) -> TrainState:
    """Return a state of what `create` makes, both networks and optimizers, without its arrays."""
    place: jax.Device | Sharding = select_device(compute.device)
    mesh = parallel.mesh_of(compute.device, compute.devices)
    if mesh is not None:
        place = parallel.replicated(mesh)
    # Abstract networks hold shapes alone: no initial weights are drawn to be thrown away.
    parts = nnx.eval_shape(create)
    graph, shapes = nnx.split(parts)
    # The learning rates are among the arrays, so that others compile nothing anew.
    compiled_for = spec.replace(generator_optimizer=AdamSpec(), discriminator_optimizer=AdamSpec())
    settings = Settings(compiled_for, compute, graph, jax.tree.structure(shapes), mesh)
    return TrainState(spec, compute, place, settings, leaves(parts))


def export_state(state: TrainState) -> Arrays:
    """Return weights, BN statistics, Adam moments and counters by canonical name."""
    variables = _variables(state.settings.merge(state.arrays))
    own = [name for name in state_shapes(state.spec) if name in variables]
    arrays = {name: np.array(variables[name][...]) for name in own}
    steps = {name: a.astype(np.int64) for name, a in arrays.items() if name.endswith("/step")}
    return arrays | steps


def import_state(state: TrainState, arrays: Arrays) -> None:
    """Replace the whole state; a missing, unexpected or misshapen array is a ValueError."""
    check_arrays(arrays, state_shapes(state.spec), "the state")
    modules = state.settings.merge(state.arrays)
    for network in NETWORKS:
        settings, own = getattr(state.spec, f"{network}_optimizer"), f"{network}_optimizer"
        arrays = arrays | {
            f"{own}/learning_rate": np.array(settings.learning_rate),
            f"{own}/updates": arrays[f"{own}/step"],
        }
    for name, variable in _variables(modules).items():
        # Flax' layouts are the canonical ones: HWIO, HWOI and (in, out).
        array = np.asarray(arrays[name]).astype(variable.dtype)
        variable.set_value(parallel.put(array, state.device))
    state.arrays = modules.arrays()


def export_gradients(state: TrainState, gradients: dict[NetworkName, nnx.State]) -> Arrays:
    """Return the gradients of each network's parameters, in their order, by canonical name."""
    arrays: Arrays = {}
    modules = state.settings.merge(state.arrays)
    for network in NETWORKS:
        module = modules.network(network)
        for name, parameter in state.spec.parameters(network).items():
            if parameter.trainable:
                arrays[name] = np.array(_variable(module, name, gradients[network])[...])
    return arrays


def _variables(state: Modules) -> dict[str, nnx.Variable]:
    """Return every variable of the state by canonical name."""
    variables: dict[str, nnx.Variable] = {}
    for network in NETWORKS:
        module, optimizer = state.network(network), state.optimizer(network)
        kept = {"step": optimizer.step} | kept_by_optax(optimizer.opt_state)
        for name, parameter in state.spec.parameters(network).items():
            variables[name] = _variable(module, name, module)
            if parameter.trainable:
                for moment in kept.keys() - {"step"}:
                    held = _variable(module, name, kept[moment])
                    variables[optimizer_name(name, moment)] = held
        variables[f"{network}_optimizer/step"] = kept["step"]
        variables[f"{network}_optimizer/updates"] = optimizer.step  # Flax' count beside Optax'
        if isinstance(optimizer, Adam):
            variables[f"{network}_optimizer/learning_rate"] = optimizer.learning_rate
    return variables


def _variable(network: nnx.Module, name: str, held: Any) -> nnx.Variable:
    """Return the variable of a canonical name in the network, its moments or its gradients."""
    _, layer, parameter = name.split("/")
    for part in (*dict(getattr(network, "paths", ())).get(layer, (layer,)), parameter):
        is_attribute = isinstance(held, nnx.Module) and isinstance(part, str)
        held = getattr(held, part) if is_attribute else held[part]
    return held
