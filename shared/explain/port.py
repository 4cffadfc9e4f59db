"""Asking an implementation, which may be partial, for everything that it can show of a probe."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shared.explain.catalogue import CANONICAL
from shared.explain.observations import (
    ADAM_STAGE,
    ALONE,
    FORWARD_STAGES,
    LOSS_STAGE,
    OUTPUTS,
    STEP_STAGES,
    Group,
    forward_inputs,
    gradient_stages,
    state_stages,
)
from shared.explain.probes import Probe
from shared.interface import Array, Arrays
from shared.spec import SystemSpec, state_shapes

_METHODS = {"generator": "generate", "discriminator": "discriminate"}
_STATE = ("create", "import_state")
NEEDED: dict[str, tuple[str, ...]] = {
    **{stage: (*_STATE, _METHODS[stage.split(",")[0]]) for stage in FORWARD_STAGES},
    LOSS_STAGE: ("loss",),
    ADAM_STAGE: ("adam",),
    STEP_STAGES[0]: (*_STATE, "train_step"),
    **dict.fromkeys(STEP_STAGES[1:3], (*_STATE, "gradients")),
    **dict.fromkeys(STEP_STAGES[3:], (*_STATE, "train_step", "export_state")),
}
"""The methods of an implementation that show a stage."""


class PortError(Exception):
    """An implementation raised, or returned something of another kind; the message names both."""


@dataclass
class Observations:
    """The stages that an implementation has shown, and why others are missing.

    `initializer` is the one that drew its initial weights. `notes` are facts found on the way.
    """

    groups: list[Group] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    initializer: str = CANONICAL.initializer


class Port:
    """An implementation under test, in one dtype; every array comes back as float64.

    Methods that the implementation does not have are stages that it does not show.
    """

    def __init__(self, implementation: Any, dtype: str) -> None:
        self.implementation, self.dtype = implementation, dtype
        # Several stages of one probe are seen of the same state, step or gradients.
        self._state = functools.lru_cache(1)(self.state_of)
        self._step = functools.lru_cache(1)(lambda probe: self.step(self.state_of(probe), probe))
        self._gradients = functools.lru_cache(1)(self._all_gradients)

    def lacking(self, *methods: str) -> str:
        """Return which of these methods are missing, as a reason; "" where none is."""
        has = (callable(getattr(self.implementation, name, None)) for name in methods)
        names = [f"{name}()" for name, there in zip(methods, has, strict=True) if not there]
        return f"the implementation has no {', '.join(names)}" if names else ""

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method; whatever it raises becomes a PortError."""
        try:
            return getattr(self.implementation, method)(*arguments, **options)
        except Exception as error:
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            raise PortError(f"{method}() raised {text}") from error

    def cast(self, array: Array) -> Array:
        """Return an array in the dtype of the implementation."""
        return array.astype(self.dtype)

    def loss(self, loss: str, *scores: Array) -> Any:
        """Return what the implementation's `loss` returns."""
        return self.call("loss", loss, *map(self.cast, scores))

    def adam(self, *arguments: Any) -> Any:
        """Return what the implementation's `adam` returns."""
        *arrays, step, settings = arguments
        return self.call("adam", *map(self.cast, arrays), step, settings)

    def inputs(self, probe: Probe) -> tuple[Array, Array]:
        """Return a probe's real images and latents for a step."""
        return self.cast(probe.real_images), self.cast(probe.latents)

    def state_of(self, probe: Probe) -> Any:
        """Return a state that holds the arrays of a probe."""
        state = self.call("create", probe.spec, seed=0, dtype=self.dtype)
        arrays = {
            n: a.copy() if n.endswith("/step") else self.cast(a) for n, a in probe.arrays.items()
        }
        self.call("import_state", state, arrays)
        return state

    def observe(self, probe: Probe, stages: Sequence[str], into: Observations) -> None:
        """Add those of some stages that the implementation shows of a probe."""
        for stage in stages:
            if reason := self.lacking(*NEEDED[stage]):
                if stage != ADAM_STAGE:  # the step shows it as well
                    into.missing[stage] = reason
            elif arrays := self._arrays(stage, probe):
                into.groups.append(Group(stage, probe, arrays))
            else:
                into.missing[stage] = "it returned none"

    def _arrays(self, stage: str, probe: Probe) -> Arrays:
        if stage in ALONE:
            return _widened(ALONE[stage](probe.spec, self), stage)
        if stage in FORWARD_STAGES:
            return self._pass(stage, self._state(probe), probe)
        shown = self._gradients(probe) if stage.startswith("gradients") else self._step(probe)
        return shown.get(stage, {})

    def _pass(self, stage: str, state: Any, probe: Probe) -> Arrays:
        network, inputs, training = forward_inputs(stage, probe)
        x, found = self.cast(inputs), {}
        if not self.lacking("activations"):
            found = self.call("activations", state, network, x, training=training)
        output = self.call(_METHODS[network], state, x, training=training)
        return _widened(found, stage) | _widened({OUTPUTS[network]: output}, stage)

    def _all_gradients(self, probe: Probe) -> dict[str, Arrays]:
        gradients = self.call("gradients", self.state_of(probe), *self.inputs(probe))
        return gradient_stages(_widened(gradients, "gradients"))

    def step(self, state: Any, probe: Probe) -> dict[str, Arrays]:
        """Make a step on a probe's inputs; return the arrays of its stages, without gradients."""
        metrics = self.call("train_step", state, *self.inputs(probe))
        found = {STEP_STAGES[0]: _widened(metrics, STEP_STAGES[0])}
        if not self.lacking("export_state"):
            found |= state_stages(self.exported(probe.spec, state))
        return found

    def exported(self, spec: SystemSpec, state: Any) -> Arrays:
        """Return the arrays of a state; those that the system has not are a PortError."""
        arrays = _widened(self.call("export_state", state), "the exported state")
        expected = state_shapes(spec)
        for name, array in arrays.items():
            if name not in expected:
                raise PortError(f"export_state() returned {name}, which {spec.name} has not")
            if array.shape != expected[name]:
                raise PortError(
                    f"export_state() returned {name} of shape {array.shape}, "
                    f"expected {expected[name]}"
                )
        return {name: arrays[name] for name in expected if name in arrays}


def _widened(arrays: Any, what: str) -> Arrays:
    """Return named arrays as float64; anything else is a PortError."""
    try:
        return {name: np.asarray(array).astype(np.float64) for name, array in arrays.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise PortError(f"{what}: expected arrays by name, received {type(arrays)}") from error
