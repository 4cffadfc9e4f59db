"""Asking an implementation, which may be partial, for everything that it can show of a probe."""

import functools
import inspect
from dataclasses import replace
from typing import Any

import numpy as np

from shared.explain import observations
from shared.explain.catalogue import KINDS
from shared.explain.observations import ADAM_STAGE, ALONE, OUTPUTS, Group, forward_inputs
from shared.explain.probes import Probe
from shared.interface import Array, Arrays, Implementation, check_arrays
from shared.spec import NetworkName, SystemSpec, state_shapes

_METHODS = {"generator": "generate", "discriminator": "discriminate"}


class PortError(Exception):
    """An implementation raised, or returned something of another kind; the message names both."""


class Port:
    """An implementation under test, in one dtype; every array comes back as float64.

    Methods that the implementation does not have are stages that it does not show.
    """

    def __init__(self, implementation: Any, dtype: str) -> None:
        self.implementation, self.dtype = implementation, dtype
        self.name = getattr(implementation, "name", type(implementation).__name__)
        self.unknown: set[NetworkName] = set()
        # Several stages of one probe are seen of the same state, step or gradients.
        self._state = functools.lru_cache(1)(self.state_of)
        self._outputs: dict[tuple[Any, ...], Array] = {}

    def lacking(self, *methods: str) -> str:
        """Return which of these methods are missing, as a reason; "" where none is.

        A method that cannot be called as the interface says is another one of the same name.
        """
        has = {name: getattr(self.implementation, name, None) for name in methods}
        absent = [f"{name}()" for name, method in has.items() if not callable(method)]
        if absent:
            return f"the implementation has no {', '.join(absent)}"
        others = [name for name, method in has.items() if not _takes_its_arguments(name, method)]
        return f"{', '.join(others)}() takes other arguments" if others else ""

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method with arrays in the dtype; whatever it raises becomes a PortError."""
        given = [a.astype(self.dtype) if isinstance(a, np.ndarray) else a for a in arguments]
        try:
            return getattr(self.implementation, method)(*given, **options)
        except Exception as error:
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            raise PortError(f"{method}() raised {text}") from error

    def state_of(self, probe: Probe) -> Any:
        """Return a state that holds the arrays of a probe."""
        state = self.call("create", probe.spec, seed=0, dtype=self.dtype)
        arrays = {
            name: array.astype(array.dtype if name.endswith("/step") else self.dtype)
            for name, array in probe.arrays.items()
        }
        self.call("import_state", state, arrays)
        return state

    def observe(self, probe: Probe, stage: str) -> Group | str:
        """Return a stage of a probe, or why the implementation does not show it."""
        if reason := self.lacking(*KINDS[stage].methods):
            is_in_step = stage == ADAM_STAGE and "takes" not in reason
            return "" if is_in_step else reason
        arrays = self._arrays(stage, probe)
        return Group(stage, probe, arrays) if arrays else "it returned none"

    def _arrays(self, stage: str, probe: Probe) -> Arrays:
        if stage in ALONE:
            return _widened(ALONE[stage](probe.spec, self.call), stage)
        if KINDS[stage].track == "forward":
            network, x, training = forward_inputs(stage, probe)
            state, found = self._state(probe), {}
            if not self.lacking("activations"):
                found = self.call("activations", state, network, x, training=training)
            output = self.call(_METHODS[network], state, x, training=training)
            return _widened(found, stage) | _widened({OUTPUTS[network]: output}, stage)
        if stage.startswith("gradients") and stage not in probe.shown:
            given = self.state_of(probe), probe.real_images, probe.latents
            gradients = _widened(self.call("gradients", *given), "gradients")
            probe.shown.update(observations.gradient_stages(gradients))
        return probe.shown.get(stage, {})

    def with_step(self, probe: Probe) -> Probe:
        """Return the probe after a step of the implementation's, if it makes any."""
        if self.lacking("create", "import_state", "train_step"):
            return probe
        return self.step(self.state_of(probe), probe)

    def step(self, state: Any, probe: Probe) -> Probe:
        """Make a step on a probe's inputs; return the probe with the state after it."""
        metrics = self.call("train_step", state, probe.real_images, probe.latents)
        after = {} if self.lacking("export_state") else self.exported(probe.spec, state)
        shown = observations.stages_of(_widened(metrics, "losses") | after)
        return replace(probe, after=after, shown=shown, port=self)

    def output(
        self, probe: Probe, network: NetworkName, arrays: Arrays, x: Array, training: bool
    ) -> Array:
        """Return the implementation's own output of a network with any weights."""
        held = {n: arrays[n] for n in probe.arrays if n.startswith(f"{network}/")}
        key = network, training, x.tobytes(), *(a.tobytes() for a in held.values())
        if key not in self._outputs:
            state = self.state_of(replace(probe, arrays=probe.arrays | held))
            found = self.call(_METHODS[network], state, x, training=training)
            self._outputs[key] = np.asarray(found).astype(np.float64)
        return self._outputs[key]

    def exported(self, spec: SystemSpec, state: Any) -> Arrays:
        """Return the arrays of a state; those that the system has not are a PortError."""
        arrays = _widened(self.call("export_state", state), "the exported state")
        expected = {name: n for name, n in state_shapes(spec).items() if name in arrays}
        try:
            check_arrays(arrays, expected, "what export_state() returned")
        except ValueError as error:
            raise PortError(str(error)) from error
        return {name: arrays[name] for name in expected}


def _widened(arrays: Any, what: str) -> Arrays:
    """Return named arrays as float64; anything else is a PortError."""
    try:
        return {name: np.asarray(array).astype(np.float64) for name, array in arrays.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise PortError(f"{what}: expected arrays by name, received {type(arrays)}") from error


def _takes_its_arguments(name: str, method: Any) -> bool:
    """Whether a method can be called with the arguments that `shared.interface` gives it."""
    _, *wanted = inspect.signature(getattr(Implementation, name)).parameters.values()
    given = [p.name for p in wanted if p.kind is p.POSITIONAL_OR_KEYWORD]
    named = {p.name: None for p in wanted if p.kind is p.KEYWORD_ONLY}
    try:
        inspect.signature(method).bind(*given, **named)
    except (TypeError, ValueError) as error:
        return isinstance(error, ValueError)  # of a builtin nothing is known
    return True
