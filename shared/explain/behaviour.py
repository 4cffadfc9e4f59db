"""What takes more than one stage: initial weights, steps in a row, calls that change a state."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from shared.explain.catalogue import CANONICAL, KNOWN_VALUES
from shared.explain.distance import INITIAL_BOUND, Comparison, Divergence
from shared.explain.observations import INITIAL_SEED, Group, Sides, forward_inputs, initial_arrays
from shared.explain.port import Observations, Port
from shared.explain.probes import KINK_MARGIN, Arrays, Probe, kink_margin
from shared.explain.report import Stage
from shared.explain.stages import INITIAL_STAGE, KINDS
from shared.fixtures.make_network import representative_inputs
from shared.reference.comparison import relative_l2
from shared.reference.differences import drifting_arrays
from shared.reference.network import forward
from shared.spec import Conventions, SystemSpec, state_shapes
from shared.spec.streams import initial_state, stream

SPREAD_DRAWS = 20  # of which the spread of a mean square is measured
# A mean square of independent draws is this many of its own standard deviations off, by chance
# never: 1 in 10⁶ for each array.
SURPRISE = 5.0
INPUT_DRAWS = 50
# Of the same arithmetic, which a GPU may do in another order: outputs; what a step moves.
SAME_OUTPUT, SAME_STEP = 1e-5, 1e-3
NUDGE = 1e-13
TWICE = "gives other numbers when it is called twice"


def initial_weights(port: Port, spec: SystemSpec, into: Observations) -> None:
    """Add a fresh state where any initializer drew it from the shared streams.

    An implementation need not draw from them; then its weights' mean squares are held against the
    spec's.
    """
    if reason := port.lacking("create", "export_state"):
        into.missing[INITIAL_STAGE] = reason
        return
    fresh = port.exported(spec, port.call("create", spec, seed=INITIAL_SEED, dtype=port.dtype))
    for name in ("spec", *KNOWN_VALUES["initializer"]) if fresh else ():
        expected = initial_arrays(spec, name)
        if all(relative_l2(fresh[n], expected[n]) <= INITIAL_BOUND for n in fresh):
            probe = Probe(f"seed {INITIAL_SEED}", spec, {}, np.empty(0), np.empty(0))
            into.groups.append(Group(INITIAL_STAGE, probe, fresh))
            into.initializer = name
            return
    into.notes += _unusual_spread(fresh, spec)
    reason = "not drawn from the shared streams" if fresh else "it returned none"
    into.missing[INITIAL_STAGE] = reason


def _unusual_spread(fresh: Arrays, spec: SystemSpec) -> list[str]:
    """Return what is to be noted of the first array whose mean square is not the spec's."""
    parameters = spec.parameters("generator") | spec.parameters("discriminator")
    draws = [initial_state(spec, seed) for seed in range(SPREAD_DRAWS)]
    for name, array in fresh.items():
        if name not in parameters or array.size < 64:
            continue
        expected = np.array([np.mean(np.square(draw[name])) for draw in draws])
        deviation = max(float(expected.std(ddof=1)), 1e-12)
        received = float(np.mean(np.square(array)))
        if abs(received - expected.mean()) > SURPRISE * deviation:
            wanted = np.sqrt(np.mean(np.square(initial_arrays(spec, "spec")[name])))
            return [
                f"initial weights are spread otherwise: {name} has {np.sqrt(received):.3g}, "
                f"expected {wanted:.3g}"
            ]
    return []


def computes_in_float32(port: Port, probe: Probe, stage: str) -> bool:
    """Whether changes of an input far below float32's resolution are lost on the way to an output.

    In float64 they are not; a difference of the size of float32's rounding alone proves nothing.
    """
    network, x, training = forward_inputs(stage, probe)
    nudged = x * (1.0 + NUDGE * stream(0, "explain/nudge").standard_normal(x.shape))
    ours = [
        forward(probe.spec, network, probe.arrays, y, CANONICAL, training=training).output
        for y in (x, nudged)
    ]
    theirs = [port.output(probe, network, probe.arrays, y, training) for y in (x, nudged)]
    kept, expected = (float(np.mean(one == other)) for one, other in (theirs, ours))
    return kept > 0.95 and expected < 0.6


def many_steps(
    port: Port,
    probe: Probe,
    sides: Sides,
    stages: Sequence[str],
    steps: int,
    comparison: Comparison,
) -> tuple[Stage, Divergence | None]:
    """Compare some stages of several steps, each from the implementation's own state.

    So rounding does not grow from step to step, and neither does a difference. Returns the largest
    difference of all steps, and the first array that differs.
    """
    stage = Stage(f"{steps} steps, each from where the implementation is")
    if reason := port.lacking("create", "import_state", "train_step", "export_state"):
        return replace(stage, reason=reason), None
    state, largest = port.state_of(probe), (0.0, "")
    for number in range(1, steps + 1):
        before = port.exported(probe.spec, state)
        if len(before) < len(state_shapes(probe.spec)):
            return replace(stage, reason="export_state() does not return the whole state"), None
        plain = replace(probe, arrays=before, after={})
        here = port.step(state, _next_probe(plain, number, port.dtype, sides.discriminator))
        shown = port.steps[here]
        for name in (name for name in stages if name in shown):
            found, divergence = comparison.compare(Group(name, here, shown[name]), sides)
            largest = max([largest, *((difference, array) for array, difference in found.items())])
            if divergence is not None:
                return Stage(stage.name, here.name, *largest, agrees=False), divergence
    return Stage(stage.name, probe.name, *largest), None


def _next_probe(probe: Probe, number: int, dtype: str, conventions: Conventions) -> Probe:
    """Return the probe with other inputs, in float32 such that are clear of every kink."""
    for draw in range(INPUT_DRAWS):
        _, real, z = representative_inputs(probe.spec, INPUT_DRAWS * number + draw, "explain")
        drawn = replace(probe, name=f"step {number}", real_images=real, latents=z)
        if dtype != "float32" or kink_margin(drawn, conventions) >= KINK_MARGIN:
            break
    return drawn


def habits(port: Port, probe: Probe) -> list[str]:
    """Return what an implementation does that no comparison of numbers can explain.

    A state that does not come back as it was given, one that a call changes which should not, and
    numbers that are others when they are asked for once more.
    """
    if port.lacking("create", "import_state", "export_state"):
        return []
    state, notes = port.state_of(probe), []
    given = {name: port.cast(array).astype(np.float64) for name, array in probe.arrays.items()}
    before = port.exported(probe.spec, state)
    if changed := _changed(given, before):
        notes.append(f"export_state() does not return what import_state() was given: {changed}")
        if changed.endswith("/m") and not before[changed].any():
            notes.append("Adam's moments are 0 after import_state(): they are not restored")
    z, real = map(port.cast, probe.one_batch)
    inputs = {"generate": (z,), "discriminate": (real,), "gradients": port.inputs(probe)}
    for method in (method for method in inputs if not port.lacking(method)):
        port.call(method, state, *inputs[method])
        if changed := _changed(before, port.exported(probe.spec, state)):
            return [*notes, f"{method}() changes the state: {changed}"]
    if not port.lacking("gradients"):
        first, second = (
            port.call("gradients", port.state_of(probe), *inputs["gradients"]) for _ in range(2)
        )
        if any(not np.allclose(first[n], second[n], rtol=1e-3, atol=0) for n in first):
            notes.append(
                f"gradients() {TWICE} from the same state: the step draws its own random numbers "
                "(latents, dropout)"
            )
    return notes + _hidden_state(port, probe)


def _hidden_state(port: Port, probe: Probe) -> list[str]:
    """Return what an implementation keeps beside the state that it exports after a step.

    A state that is given what another one exports must go on as that one does. Gradients that are
    not set to zero, a schedule with its own counter and averaged weights do not show in one step.
    """
    if port.lacking("train_step"):
        return []
    inputs, (z, real) = port.inputs(probe), map(port.cast, probe.one_batch)
    trained = port.state_of(probe)
    port.call("train_step", trained, *inputs)
    kept = replace(probe, arrays=port.exported(probe.spec, trained))
    if len(kept.arrays) < len(probe.arrays):
        return []

    def after_a_step(state: Any) -> Arrays:
        port.call("train_step", state, *inputs)
        return port.exported(probe.spec, state)

    restored, notes = port.state_of(kept), []
    for method, x in (("generate", z), ("discriminate", real)):
        if not port.lacking(method):
            states = (trained, restored, restored)
            own, given, again = (port.call(method, state, x) for state in states)
            if not relative_l2(given, again) <= SAME_OUTPUT:
                notes.append(f"{method}() {TWICE}")
            elif not relative_l2(own, given) <= SAME_OUTPUT:
                notes.append(f"{method}() after a step has other arrays than export_state()")
    own, given = after_a_step(trained), after_a_step(restored)
    if _moved_otherwise(probe.spec, kept.arrays, own, given):
        # Rarely, because a framework may compile a step for each state.
        again = after_a_step(port.state_of(kept))
        if _moved_otherwise(probe.spec, kept.arrays, given, again):
            notes.append(
                f"train_step() {TWICE} from the same state: it draws random numbers of its own "
                "(dropout, noise), or counts outside the state"
            )
        else:
            notes.append(
                "a second train_step() depends on something that export_state() does not return, "
                "such as gradients that are not set to zero or a schedule's own counter"
            )
    return notes


def random_stages(port: Port, probe: Probe, seen: Observations) -> set[str]:
    """Return the stages whose numbers are others when an implementation is asked again.

    Not Adam's, which are held against what the same step returned.
    """
    asked, again = Port(port.implementation, port.dtype), Observations()
    plain = asked.with_step(replace(probe, after={}, port=None))
    for stage in (stage for stage in KINDS if not stage.startswith(("Adam's", "updated"))):
        asked.observe(plain, stage, again)
    first = {group.stage: group.arrays for group in seen.groups if group.probe.name == probe.name}
    unsure = {*drifting_arrays(probe.spec)}
    return {
        group.stage
        for group in again.groups
        for name, array in group.arrays.items()
        if name not in unsure and not relative_l2(array, first[group.stage][name]) <= SAME_STEP
    }


def _moved_otherwise(spec: SystemSpec, before: Arrays, first: Arrays, second: Arrays) -> bool:
    """Whether an array is moved in two ways from where both were; not one that rounding moves."""
    drifting = tuple(name.replace("/", "_optimizer/", 1) for name in drifting_arrays(spec))
    names = (n for n in before if not n.startswith((*drifting, *drifting_arrays(spec))))
    moved = ((first[n], second[n], first[n] - before[n]) for n in names)
    return any(not relative_l2(*arrays) <= SAME_STEP for arrays in moved)


def _changed(before: Arrays, after: Arrays) -> str:
    other = (n for n, a in after.items() if not np.array_equal(before[n], a, equal_nan=True))
    return next(other, "")
