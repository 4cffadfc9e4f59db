"""What can be seen of a step, stage by stage: of an implementation, and of the reference.

Stages are in the order in which a mistake spreads: what a network makes of its inputs, losses,
gradients, BN statistics, Adam. The reference computes a stage only when it is asked for.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.explain.probes import Probe
from shared.interface import METRIC_NAMES, Array, Arrays
from shared.reference.adapter import ReferenceImplementation
from shared.reference.network import forward
from shared.reference.step import train_step
from shared.spec import NETWORKS, Conventions, NetworkName, SystemSpec
from shared.spec.streams import initial_state

INITIAL_STAGE = "initial weights"
FORWARD_STAGES = (
    "generator, running statistics",
    "discriminator, running statistics",
    "generator, batch statistics",
    "discriminator, batch statistics",
)
LOSS_STAGE = "loss functions"
ADAM_STAGE = "Adam alone"
STEP_STAGES = (
    "losses of a step",
    "gradients of the discriminator",
    "gradients of the generator",
    "batch normalisation's statistics",
    "Adam's moments",
    "updated parameters",
)
STAGES = (INITIAL_STAGE, *FORWARD_STAGES, LOSS_STAGE, ADAM_STAGE, *STEP_STAGES)
OUTPUTS = {"generator": "images", "discriminator": "scores"}
INITIAL_SEED = 3
MOST_KEPT = 400  # passes and steps, each some hundred kilobytes


@dataclass(frozen=True)
class Group:
    """The arrays of one stage of one probe, by name."""

    stage: str
    probe: Probe
    arrays: Arrays


@np.errstate(all="ignore")  # a wrong convention may overflow
def reference_arrays(stage: str, probe: Probe, conventions: Conventions) -> Arrays:
    """Return the arrays of a stage under any conventions, each computed once."""
    if stage == INITIAL_STAGE:
        return initial_arrays(probe.spec, conventions.initializer)
    if stage in ALONE:
        return ALONE[stage](probe.spec, ReferenceImplementation(conventions))
    if stage in FORWARD_STAGES:
        return _reference_pass(stage, probe, conventions)
    return _reference_step(probe, conventions)[stage]


@functools.lru_cache(16)
def initial_arrays(spec: SystemSpec, initializer: str) -> Arrays:
    """Return the weights that an initializer draws from the shared streams."""
    return initial_state(spec, INITIAL_SEED, Conventions().replace(initializer=initializer))


@functools.lru_cache(MOST_KEPT)
def _reference_pass(stage: str, probe: Probe, conventions: Conventions) -> Arrays:
    network, x, training = forward_inputs(stage, probe)
    run = forward(probe.spec, network, probe.arrays, x, conventions, training=training)
    return run.activations | {OUTPUTS[network]: run.output}


@functools.lru_cache(MOST_KEPT)
def _reference_step(probe: Probe, conventions: Conventions) -> dict[str, Arrays]:
    step = train_step(probe.spec, probe.arrays, probe.real_images, probe.latents, conventions)
    losses = {name: np.asarray(step.metrics[name]) for name in METRIC_NAMES}
    return {STEP_STAGES[0]: losses} | gradient_stages(step.gradients) | state_stages(step.arrays)


def forward_inputs(stage: str, probe: Probe) -> tuple[NetworkName, Array, bool]:
    """Return network, input and training mode of a stage of the forward passes."""
    z, real = probe.one_batch
    training = stage.endswith("batch statistics")
    if stage.startswith("generator"):
        return "generator", z, training
    return "discriminator", real, training


def gradient_stages(gradients: Arrays) -> dict[str, Arrays]:
    """Return the gradients by stage, from the loss backwards.

    So an error in one layer's gradient shows in those that come behind it.
    """
    return {
        f"gradients of the {network}": {
            name: gradients[name] for name in reversed(gradients) if name.startswith(f"{network}/")
        }
        for network in reversed(NETWORKS)
    }


def state_stages(after: Arrays) -> dict[str, Arrays]:
    """Return the arrays of a state after a step by stage."""
    stages: dict[str, Arrays] = {stage: {} for stage in STEP_STAGES[3:]}
    statistics, moments, parameters = stages.values()
    for name, array in after.items():
        if name.endswith(("/mean", "/var")):
            statistics[name] = array
        elif name.endswith(("/m", "/v", "_optimizer/step")):
            moments[name] = array
        else:
            parameters[name] = array
    return stages


def loss_arrays(spec: SystemSpec, implementation: Any) -> Arrays:
    """Return every value and gradient of the system's loss on every set of scores, by name."""
    return {
        f"{name}: {field}": np.asarray(value)
        for name, scores in _score_sets(spec.loss).items()
        for field, value in dataclasses.asdict(implementation.loss(spec.loss, *scores)).items()
    }


def _score_sets(loss: str) -> dict[str, tuple[Array, Array]]:
    if loss == "bce_probs":
        inner = np.array([0.1, 0.35, 0.6, 0.9, 0.75]), np.array([0.2, 0.5, 0.55, 0.95, 0.05])
        # Where a clamp shows: the wrong answer with certainty, or nearly.
        edges = np.array([0.0, 2.0**-60]), np.array([1.0 - 2.0**-24, 2.0**-40])
        return {"inner": inner, "edges": edges}
    inner = np.array([0.25, -1.5, 2.0, 0.75, -0.5]), np.array([1.25, -2.0, 0.5, -0.25, 3.0])
    return {"inner": inner}


def adam_arrays(spec: SystemSpec, implementation: Any) -> Arrays:
    """Return the moments and the move of updates number 1 and 8, gradients of 1e-9 to 1e-1."""
    size = 64
    gradient = np.geomspace(1e-9, 1e-1, size) * np.where(np.arange(size) % 2, 1.0, -1.0)
    parameter, zeros = 2.0**-10 * np.linspace(-1.0, 1.0, size), np.zeros(size)
    parameter, gradient = (x.astype(np.float32).astype(np.float64) for x in (parameter, gradient))
    arrays: Arrays = {}
    for step, m, v in ((1, zeros, zeros), (8, zeros + 2.0**-10, zeros + 2.0**-20)):
        after = implementation.adam(parameter, gradient, m, v, step, spec.generator_optimizer)
        for name, array in zip(("parameter", "m", "v"), after, strict=True):
            arrays[f"update {step}: {name}"] = np.asarray(array, np.float64)
    return arrays


ALONE: dict[str, Callable[[SystemSpec, Any], Arrays]] = {
    LOSS_STAGE: loss_arrays,
    ADAM_STAGE: adam_arrays,
}
"""Stages that need no state of an implementation, each with what asks for it."""
