"""What can be seen of a step, stage by stage: of an implementation, and of the reference.

Every stage of a step is computed from what the implementation itself handed to it, where it has
shown that: so a mistake in one stage does not spread to the next. The reference computes a stage
only when it is asked for.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from shared.explain.catalogue import CANONICAL, INITIAL_STAGE, KINDS, PARTS, network_of
from shared.explain.probes import Probe
from shared.interface import METRIC_NAMES, Array, Arrays
from shared.reference.adapter import ReferenceImplementation
from shared.reference.network import Pass, forward
from shared.reference.optimizers import adam_settings, adam_update, clipped, moved_parameter
from shared.reference.step import Step, settings_of
from shared.spec import NETWORKS, AdamSpec, Conventions, NetworkName, SystemSpec, optimizer_name
from shared.spec.streams import initial_state

ADAM_STAGE = "Adam alone"
OUTPUTS = {"generator": "images", "discriminator": "scores"}
INITIAL_SEED = 3
MOST_KEPT = 200  # passes and steps, each some hundred kilobytes
COMPUTED: Counter[str] = Counter()
"""How many passes of networks, there and back, the reference has made: what a search costs."""
PASS_FIELDS = (*PARTS["network"], *PARTS["statistics"], "leaky_relu_gradient_at_zero")
"""What a pass and its way back depend on."""
UNCLIPPED = {"gradient_clipping": "none", "gradient_clip": CANONICAL.gradient_clip}


class Sides(NamedTuple):
    """The conventions of each network; a step's own are the discriminator's."""

    generator: Conventions
    discriminator: Conventions


START = Sides(CANONICAL, CANONICAL)
Under = Conventions | Sides
"""Conventions of both networks, or of each."""


@dataclass(frozen=True)
class Group:
    """The arrays of one stage of one probe, by name."""

    stage: str
    probe: Probe
    arrays: Arrays


def differing_arrays(group: Group, one: Sides, other: Sides) -> set[str]:
    """Return the names of a group's arrays that are not the same under other conventions."""
    ours, theirs = (reference_arrays(group.stage, group.probe, sides) for sides in (one, other))
    common = ours.keys() & theirs.keys()
    return ours.keys() - {n for n in common if np.array_equal(ours[n], theirs[n], equal_nan=True)}


@np.errstate(all="ignore")  # a wrong convention may overflow
def reference_arrays(stage: str, probe: Probe, under: Under, is_clipped: bool = True) -> Arrays:
    """Return the arrays of a stage under any conventions, each computed once.

    Gradients as an optimizer has clipped them, or else as it received them.
    """
    both = (under, under) if isinstance(under, Conventions) else under
    conventions = Sides(*map(probe.spec.own_conventions, both))
    own = getattr(conventions, network_of(stage))
    if stage == INITIAL_STAGE:
        return initial_arrays(probe.spec, own.initializer)
    if stage in ALONE:
        reference = ReferenceImplementation(own)
        return ALONE[stage](probe.spec, lambda name, *given: getattr(reference, name)(*given))
    if KINDS[stage].track == "forward":
        return _reference_pass(stage, probe, own)
    settings = settings_of(probe.spec, network_of(stage), own)
    is_shown = "Adam" in KINDS[stage].parts and bool(probe.after)
    is_shown = is_shown and "v_max" not in settings.kept
    if isinstance(settings, AdamSpec) and is_shown and not is_chained(probe.spec, own, stage):
        return _own_updates(stage, probe, own, settings)
    once = not any(is_chained(probe.spec, c, n) for n, c in conventions._asdict().items())
    if stage.startswith("gradients"):
        free = Sides(*(c.replace(**UNCLIPPED) for c in conventions)) if once else conventions
        received = _reference_step(probe, free, False).get(stage, {})
        return clipped(received, settings) if is_clipped else received
    is_forward = once and stage.startswith(("BN", "losses")) and bool(probe.after)
    return _reference_step(probe, conventions, is_forward).get(stage, {})


def is_of_gradients(spec: SystemSpec, stage: str) -> bool:
    """Whether an update's stage needs the gradient: an Adam's first moments hold it, no others."""
    optimizer = getattr(spec, f"{network_of(stage)}_optimizer")
    return stage.startswith(("Adam's second", "updated")) and not isinstance(optimizer, AdamSpec)


def is_chained(spec: SystemSpec, c: Conventions, name: str) -> bool:
    """Whether updates of a network, or of a stage's, are of several gradients or an unknown one."""
    several, network = spec.discriminator_steps + c.discriminator_step_offset > 1, network_of(name)
    chained = getattr(c, f"{network}_updates") not in ("once", "twice", "never")
    return is_of_gradients(spec, name) or chained or (network == "discriminator" and several)


@functools.lru_cache(16)
def initial_arrays(spec: SystemSpec, initializer: str) -> Arrays:
    """Return the weights that an initializer draws from the shared streams."""
    return initial_state(spec, INITIAL_SEED, Conventions().replace(initializer=initializer))


@functools.lru_cache(MOST_KEPT)
def _reference_pass(stage: str, probe: Probe, conventions: Conventions) -> Arrays:
    COMPUTED["passes"] += 1
    network, x, training = forward_inputs(stage, probe)
    run = forward(probe.spec, network, probe.arrays, x, conventions, training=training)
    return run.activations | {OUTPUTS[network]: run.output}


class _OwnStep(Step):
    """A step that goes on from the implementation's own updates, and own outputs where given."""

    passes: ClassVar[dict[tuple[Any, ...], tuple[Pass, Any]]] = {}

    def __init__(self, probe: Probe, sides: Sides, is_forward: bool) -> None:
        super().__init__(probe.spec, sides.discriminator, sides.generator)
        self.probe, self.is_forward = probe, is_forward
        self.computed: Arrays = {}

    def forward(self, network: NetworkName, arrays: Arrays, x: Array, training: bool) -> Pass:
        """Run a network, or return what it has made of the same arrays already."""
        own = [a for n, a in arrays.items() if n.startswith(f"{network}/")]
        place = x.__array_interface__["data"][0], x.shape, x.strides
        settings = tuple(getattr(self.of[network], name) for name in PASS_FIELDS)
        key = network, id(self.probe), training, place, settings, *map(id, own)
        if key not in self.passes:
            COMPUTED["passes"] += 1
            run = super().forward(network, arrays, x, training)
            if self.probe.port is not None and network in self.probe.port.unknown:
                known = self.probe.port.output(self.probe, network, arrays, x, training)
                run = dataclasses.replace(run, output=known)
            if len(self.passes) >= MOST_KEPT:
                self.passes.clear()
            self.passes[key] = run, (own, x, self.probe)  # which keeps their addresses theirs
        return self.passes[key][0]

    def backward(self, network: NetworkName, run: Pass, gradient: Array) -> tuple[Array, Arrays]:
        """Differentiate a pass, or return no gradients where nothing is asked that needs them."""
        if self.is_forward:
            return gradient, {}
        COMPUTED["passes"] += 1
        return super().backward(network, run, gradient)

    def update(
        self, network: NetworkName, arrays: Arrays, gradients: Arrays, is_last: bool
    ) -> Arrays:
        """Return the state after an update: the implementation's own after the last one."""
        after = super().update(network, arrays, gradients, is_last)
        self.computed |= {n: a for n, a in after.items() if n.startswith(network)}
        return after | self.probe.weights_after(network) if is_last else after


@functools.lru_cache(MOST_KEPT)
def _reference_step(probe: Probe, sides: Sides, is_forward: bool) -> dict[str, Arrays]:
    step = _OwnStep(probe, sides, is_forward)
    result = step.run(probe.arrays, probe.real_images, probe.latents)
    statistics = {n: a for n, a in result.arrays.items() if n.endswith(("/mean", "/var"))}
    shown = result.arrays | step.computed | statistics | result.metrics
    return gradient_stages(result.gradients) | stages_of(shown)


def forget_steps() -> None:
    """Forget what was computed of steps, before a network's own outputs take the place of it."""
    _OwnStep.passes.clear()
    _reference_step.cache_clear()


def _own_updates(stage: str, probe: Probe, c: Conventions, settings: AdamSpec) -> Arrays:
    """Return what Adam makes of the gradient that the implementation's first moments hold."""
    network, after, found = network_of(stage), probe.after or {}, {}
    beta1, beta2, _ = adam_settings(settings, c)
    times = {"never": 0, "twice": 2}.get(getattr(c, f"{network}_updates"), 1)
    counter = f"{network}_optimizer/step"
    before = int(probe.arrays[counter])
    found[counter] = np.array(before + times, np.float64)
    plain = c.replace(adam_weight_decay=0.0)  # the gradient has it already
    for name in (n for n, p in probe.spec.parameters(network).items() if p.trainable):
        first, second = (optimizer_name(name, moment) for moment in ("m", "v"))
        parameter, m, v = probe.arrays[name], probe.arrays[first], probe.arrays[second]
        if times and first in after:
            kept = beta1**times
            gradient = (after[first] - kept * m) / (1.0 - kept)
            for number in range(1, times):
                held = parameter, gradient, (m, v)
                parameter, m, v = adam_update(*held, before + number, settings, plain)
            v = beta2 * v + (1.0 - beta2) * np.square(gradient)
            shown = after[first], after.get(second, v)
            parameter = moved_parameter(parameter, *shown, before + times, settings, c)
        found |= {second: v, name: parameter}
    of_optimizer = not stage.startswith("updated")
    return {name: a for name, a in found.items() if ("_optimizer/" in name) == of_optimizer}


def forward_inputs(stage: str, probe: Probe) -> tuple[NetworkName, Array, bool]:
    """Return network, input and training mode of a stage of the forward passes."""
    network, (z, real) = network_of(stage), probe.one_batch
    return network, z if network == "generator" else real, stage.endswith("batch statistics")


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


def stages_of(shown: Mapping[str, Any]) -> dict[str, Arrays]:
    """Return the losses and the arrays of a state after a step by stage, as float64."""
    stages: dict[str, Arrays] = {}
    known = {n: a for n, a in shown.items() if "/" in n or n in METRIC_NAMES}
    for name, array in known.items():
        stage = "updated parameters of the {}"
        if "/" not in name:
            stage = "losses of the {}"
        elif name.endswith(("/mean", "/var")):
            stage = "BN statistics of the {}"
        elif name.endswith("/m"):
            stage = "Adam's first moments of the {}"
        elif "_optimizer/" in name:
            stage = "Adam's second moments of the {}"
        own = stages.setdefault(stage.format(network_of(name)), {})
        own[name] = np.asarray(array, np.float64)
    return stages


def loss_arrays(spec: SystemSpec, call: Callable[..., Any]) -> Arrays:
    """Return every value and gradient of the system's loss on every set of scores, by name."""
    # Of another number for another size of batch; not even their squares are float32 numbers.
    phase = 1.0 + 2.3 * np.arange(4 + spec.batch_size)
    sets = {"inner": (2.9 * np.sin(phase), 2.9 * np.cos(phase))}
    if spec.loss == "bce_probs":
        sets["inner"] = 0.5 + 0.45 * np.sin(phase), 0.5 + 0.45 * np.cos(phase)
        # Where a clamp shows: the wrong answer with certainty, or nearly.
        sets["edges"] = np.array([0.0, 2.0**-60]), np.array([1.0 - 2.0**-24, 2.0**-40])
    return {
        f"{name}: {field}": np.asarray(value)
        for name, scores in sets.items()
        for field, value in dataclasses.asdict(call("loss", spec.loss, *scores)).items()
    }


def adam_arrays(spec: SystemSpec, call: Callable[..., Any]) -> Arrays:
    """Return moments and move of update 1 and of one that follows from the size of a batch.

    Of gradients from 1e-9 to 1e-1.
    """
    size = 64
    gradient = np.geomspace(1e-9, 1e-1, size) * np.where(np.arange(size) % 2, 1.0, -1.0)
    parameter, zeros = 2.0**-10 * np.linspace(-1.0, 1.0, size), np.zeros(size)
    parameter, gradient = (x.astype(np.float32).astype(np.float64) for x in (parameter, gradient))
    arrays: Arrays = {}
    own = spec.generator_optimizer
    adam = own if isinstance(own, AdamSpec) else AdamSpec()
    settings = AdamSpec(adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon)
    late = 4 + spec.batch_size, zeros + 2.0**-10, zeros + 2.0**-20
    for step, m, v in ((1, zeros, zeros), late):
        after = call("adam", parameter, gradient, m, v, step, settings)
        for name, array in zip(("parameter", "m", "v"), after, strict=True):
            arrays[f"update {step}: {name}"] = np.asarray(array, np.float64)
    return arrays


ALONE: dict[str, Callable[..., Arrays]] = {"loss functions": loss_arrays, ADAM_STAGE: adam_arrays}
"""Stages that need no state of an implementation, each with what calls its methods by name."""
