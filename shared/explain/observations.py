"""What can be seen of a step, stage by stage: of an implementation, and of the reference.

Stages stand in the order in which a mistake spreads: what a network makes of its inputs, losses,
gradients, BN statistics, Adam. The reference computes a stage only when it is asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from shared.explain.probes import Arrays, Probe
from shared.interface import METRIC_NAMES, LossValues
from shared.reference.adam import adam_update
from shared.reference.losses import loss_values
from shared.reference.network import forward
from shared.reference.step import train_step
from shared.spec import NETWORKS, AdamSpec, Conventions, NetworkName, SystemSpec

Block = Literal["forward", "loss", "adam", "step"]

FORWARD_STAGES = (
    "generator, running statistics",
    "discriminator, running statistics",
    "generator, batch statistics",
    "discriminator, batch statistics",
)
LOSS_STAGE = "loss functions"
STEP_STAGES = (
    "losses of a step",
    "gradients of the discriminator",
    "gradients of the generator",
    "batch normalisation's statistics",
    "Adam's moments",
    "updated parameters",
)
ADAM_STAGE = "Adam alone"
STAGES: dict[Block, tuple[str, ...]] = {
    "forward": FORWARD_STAGES,
    "loss": (LOSS_STAGE,),
    "adam": (ADAM_STAGE,),
    "step": STEP_STAGES,
}


MOST_STEPS_KEPT = 400  # each is some hundred kilobytes


@dataclass(frozen=True)
class Group:
    """The arrays of one stage of one probe, by name."""

    stage: str
    probe: Probe
    arrays: Arrays


def score_sets(loss: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return real and fake scores on which loss functions are compared, by a name."""
    if loss == "bce_probs":
        inner = np.array([0.1, 0.35, 0.6, 0.9, 0.75]), np.array([0.2, 0.5, 0.55, 0.95, 0.05])
        # Where a clamp shows: the wrong answer with certainty, or nearly.
        edges = np.array([0.0, 2.0**-60]), np.array([1.0 - 2.0**-24, 2.0**-40])
        return {"inner": inner, "edges": edges}
    inner = np.array([0.25, -1.5, 2.0, 0.75, -0.5]), np.array([1.25, -2.0, 0.5, -0.25, 3.0])
    return {"inner": inner}


def gradient_stages(gradients: Arrays) -> dict[str, Arrays]:
    """Return the gradients by stage, from the loss backwards.

    So an error in one layer's gradient shows in those that stand behind it.
    """
    return {
        f"gradients of the {network}": _starting(gradients, f"{network}/")
        for network in reversed(NETWORKS)
    }


def state_stages(spec: SystemSpec, after: Arrays) -> dict[str, Arrays]:
    """Return the arrays of a state after a step by stage."""
    trainable = {n for w in NETWORKS for n, p in spec.parameters(w).items() if p.trainable}
    return {
        "batch normalisation's statistics": {
            n: a for n, a in after.items() if n.endswith(("/mean", "/var"))
        },
        "Adam's moments": {
            n: a for n, a in after.items() if n.endswith(("/m", "/v", "_optimizer/step"))
        },
        "updated parameters": {n: a for n, a in after.items() if n in trainable},
    }


def _starting(arrays: Arrays, prefix: str) -> Arrays:
    return {n: arrays[n] for n in reversed(arrays) if n.startswith(prefix)}


class ReferenceObserver:
    """The reference's arrays of any stage under any conventions, each computed once."""

    def __init__(self) -> None:
        self._steps: dict[tuple[Probe, Conventions], dict[str, Arrays]] = {}
        self._passes: dict[tuple[Any, ...], Arrays] = {}
        self.steps_made = 0

    def arrays(self, stage: str, probe: Probe, conventions: Conventions) -> Arrays:
        """Return the arrays of a stage."""
        if stage in FORWARD_STAGES:
            return self._pass(stage, probe, conventions)
        if stage == LOSS_STAGE:
            return loss_arrays(probe.spec.loss, _loss_function(conventions))
        if stage == ADAM_STAGE:
            return adam_arrays(probe.spec, _adam_function(conventions))
        return self._step(probe, conventions)[stage]

    def _pass(self, stage: str, probe: Probe, conventions: Conventions) -> Arrays:
        key = (stage, probe, conventions)
        if key not in self._passes:
            network, x, training = forward_inputs(stage, probe)
            run = forward(probe.spec, network, probe.arrays, x, conventions, training=training)
            self._passes[key] = run.activations | {output_name(network): run.output}
        return self._passes[key]

    def _step(self, probe: Probe, conventions: Conventions) -> dict[str, Arrays]:
        key = (probe, conventions)
        if key not in self._steps:
            self.steps_made += 1
            if len(self._steps) >= MOST_STEPS_KEPT:
                self._steps.pop(next(iter(self._steps)))
            with np.errstate(all="ignore"):  # a wrong convention may overflow
                step = train_step(
                    probe.spec, probe.arrays, probe.real_images, probe.latents, conventions
                )
            losses = {n: np.asarray(step.metrics[n]) for n in METRIC_NAMES}
            self._steps[key] = (
                {"losses of a step": losses}
                | gradient_stages(step.gradients)
                | state_stages(probe.spec, step.arrays)
            )
        return self._steps[key]


def forward_inputs(stage: str, probe: Probe) -> tuple[NetworkName, np.ndarray, bool]:
    """Return network, input and training mode of a stage of the forward passes."""
    network: NetworkName = "generator" if stage.startswith("generator") else "discriminator"
    z, real = probe.one_batch
    return network, z if network == "generator" else real, stage.endswith("batch statistics")


def output_name(network: str) -> str:
    """Return how the output of a network is called."""
    return "images" if network == "generator" else "scores"


def _loss_function(conventions: Conventions) -> Callable[..., LossValues]:
    def function(loss: str, real: np.ndarray, fake: np.ndarray) -> LossValues:
        with np.errstate(all="ignore"):
            return loss_values(loss, real, fake, conventions)

    return function


def loss_arrays(loss: str, function: Callable[..., LossValues]) -> Arrays:
    """Return every value and gradient of a loss on every set of scores, by name."""
    return {
        f"{name}: {field}": np.asarray(value)
        for name, scores in score_sets(loss).items()
        for field, value in dataclasses.asdict(function(loss, *scores)).items()
    }


def _adam_function(conventions: Conventions) -> Callable[..., tuple[np.ndarray, ...]]:
    def function(
        parameter: np.ndarray,
        gradient: np.ndarray,
        m: np.ndarray,
        v: np.ndarray,
        *,
        step: int,
        settings: AdamSpec,
    ) -> tuple[np.ndarray, ...]:
        with np.errstate(all="ignore"):
            return adam_update(parameter, gradient, (m, v), step, settings, conventions)

    return function


def adam_arrays(spec: SystemSpec, function: Callable[..., tuple[Any, ...]]) -> Arrays:
    """Return the moments and the move of updates number 1 and 8, gradients of 1e-9 to 1e-1."""
    size = 64
    gradient = np.geomspace(1e-9, 1e-1, size) * np.where(np.arange(size) % 2, 1.0, -1.0)
    gradient = gradient.astype(np.float32).astype(np.float64)
    parameter, zeros = 2.0**-10 * np.linspace(-1.0, 1.0, size), np.zeros(size)
    arrays: Arrays = {}
    for step, m, v in ((1, zeros, zeros), (8, zeros + 2.0**-10, zeros + 2.0**-20)):
        after = function(
            parameter.astype(np.float32).astype(np.float64),
            gradient,
            m,
            v,
            step=step,
            settings=spec.generator_optimizer,
        )
        for name, array in zip(("parameter", "m", "v"), after, strict=True):
            arrays[f"update {step}: {name}"] = np.asarray(array, np.float64)
    return arrays
