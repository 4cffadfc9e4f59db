"""What takes more than one stage: initial weights, steps in a row, calls that change a state."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import chdtrc, ndtr

from shared.explain.catalogue import CANONICAL, INITIAL_STAGE, KINDS, KNOWN_VALUES
from shared.explain.distance import BOUNDS, INITIAL_BOUND, Comparison
from shared.explain.observations import INITIAL_SEED, Group, Sides, forward_inputs, initial_arrays
from shared.explain.port import Port, PortError
from shared.explain.probes import Array, Arrays, Probe, draw_probe, kink_margin
from shared.explain.report import Located, Stage
from shared.fixtures.network import KINK_MARGIN, representative_inputs
from shared.reference.comparison import drifting_arrays, relative_l2
from shared.reference.network import forward
from shared.spec import Conventions, SystemSpec, state_shapes
from shared.spec.streams import initializers, stream

# p-values of some dozen arrays: right draws have none of the first, and seldom one of the second.
SURPRISE, PLAUSIBLE = 1e-8, 1e-4
INPUT_DRAWS = 50
# Of the same arithmetic, which a GPU may do in another order: outputs; what a step moves.
SAME_OUTPUT, SAME_STEP = 1e-5, 1e-3
NUDGE = 1e-13
PRIME_BATCHES = (7, 5)
LOSING = -1.5, 1.5  # scores at which one network or the other has a cross entropy of 1.7
TWICE = "gives other numbers when it is called twice"


def initial_weights(port: Port, spec: SystemSpec) -> tuple[Group | str, str, list[Located]]:
    """Return a fresh state, or why there is none; its initializer; and where it is unlikely.

    An implementation need not draw from the shared streams. Then it is held against what the spec's
    initializers draw; where that is unlikely two states are, against each framework's defaults.
    """
    if reason := port.lacking("create", "export_state"):
        return reason, CANONICAL.initializer, []
    names = ("spec", *KNOWN_VALUES["initializer"])
    seeds = INITIAL_SEED, INITIAL_SEED + 1
    states = (port.call("create", spec, seed=seed, dtype=port.dtype) for seed in seeds)
    fresh, other = (port.exported(spec, state) for state in states)
    for name in names if fresh else ():
        expected = initial_arrays(spec, name)
        if all(relative_l2(a, expected[n]) <= INITIAL_BOUND for n, a in fresh.items()):
            probe = Probe(f"seed {INITIAL_SEED}", spec, {}, np.empty(0), np.empty(0))
            return Group(INITIAL_STAGE, probe, fresh), name, []
    reason = "not drawn from the shared streams" if fresh else "it returned none"
    unlikely, both = _unlikely(fresh, spec, "spec", SURPRISE), (fresh, other)
    if not unlikely:
        return reason, CANONICAL.initializer, []
    likely = [n for n in names if not any(_unlikely(x, spec, n, PLAUSIBLE) for x in both)]
    if len(likely) == 1:
        return reason, likely[0], []
    hint, arrays = next(iter(unlikely.values())), tuple(unlikely)
    place = Located(INITIAL_STAGE, arrays=arrays, tried=len(names), note=hint)
    return reason, CANONICAL.initializer, [place]


def _unlikely(fresh: Arrays, spec: SystemSpec, initializer: str, level: float) -> dict[str, str]:
    """Return what an initializer does not draw: arrays, and all of a kind of a network together.

    By Pearson's chi-squared test of where the numbers are in their distribution, ten or more on
    average in each part of it. So several small arrays show what none of them does alone.
    """
    placed: dict[str, list[tuple[Array, Array]]] = {}
    found: dict[str, str] = {}
    laws = initializers(spec, CANONICAL.replace(initializer=initializer))
    for name in (name for name in laws if name in fresh):
        (parameter, law), x = laws[name], fresh[name].ravel()
        if law.distribution == "constant":
            found |= {} if np.allclose(x, law.mean) else {name: f"{name} is not {law.mean:g}"}
            continue
        place = ndtr(z := (x - law.mean) / (law.scale or parameter.fan_in**-0.5))
        if law.distribution.startswith("uniform"):
            place = 0.5 * (z + 1.0)
        elif law.distribution == "truncated_normal":
            place = (place - ndtr(-2.0)) / (ndtr(2.0) - ndtr(-2.0))
        network, _, kind = name.split("/")
        for key in (name, f"{network}/*/{kind}"):
            placed.setdefault(key, []).append((x, place))
    for key, several in placed.items():
        x, place = np.concatenate(several, axis=1)
        parts = max(1, min(64, x.size // 10))
        counts, usual = np.histogram(place, parts, (0.0, 1.0))[0], x.size / parts
        chance = float(chdtrc(parts - 1, np.sum(np.square(counts - usual)) / usual))
        if chance < level or np.abs(place - 0.5).max() > 0.5 + SAME_OUTPUT:
            spread = f"mean {x.mean():.3g}, deviation {x.std():.3g}"
            found[key] = f"{key}: {spread}, p = {chance:.0e} of the spec's distribution"
    return found


def computes_in_float32(port: Port, probe: Probe, stage: str) -> bool:
    """Whether changes of an input far below float32's resolution are lost on the way to an output.

    In float64 they are not; a difference of the size of float32's rounding alone proves nothing.
    Rounding to 8 or 16 bits loses them too: outputs have to be near, or float32 numbers.
    """
    network, x, training = forward_inputs(stage, probe)
    nudged = x * (1.0 + NUDGE * stream(0, "explain/nudge").standard_normal(x.shape))
    given, both = (network, probe.arrays), (x, nudged)
    ours = [forward(probe.spec, *given, y, CANONICAL, training=training).output for y in both]
    theirs = [port.output(probe, *given, y, training) for y in both]
    kept, expected = (float(np.mean(one == other)) for one, other in (theirs, ours))
    own, is_near = theirs[0], relative_l2(theirs[0], ours[0]) <= BOUNDS["float32"]
    are_single = np.array_equal(own, np.float32(own)) and not np.array_equal(own, np.float16(own))
    return kept > 0.95 and expected < 0.6 and (is_near or are_single)


def held_out(
    port: Port, spec: SystemSpec, seed: int, clear_under: Sequence[Conventions], score: float
) -> list[Group]:
    """Return the groups of a probe that no search has seen, with a score of LOSING.

    One at which a port raises or has no numbers is drawn again.
    """
    own, error, seen = spec.batch_size, PortError(""), list[Group]()
    prime = next(size for size in PRIME_BATCHES if size != own)
    sizes = (prime, 3 * own, own)  # some ports halve their batches, or have one size
    # Scores that are to be probabilities may have none of such a mean.
    draws = *((draw, score) for draw in range(3)), *((draw, 0.0) for draw in range(12))
    for (draw, mean), size in itertools.product(draws, sizes):
        try:
            given = spec.replace(batch_size=size), seed + draw, clear_under, mean
            groups = all_stages(port, draw_probe("held out", *given))
            if not any(np.isnan(a).any() for g in groups for a in g.arrays.values()):
                return groups
            seen = seen or groups
        except PortError as raised:
            error = raised
    if not seen:
        raise error
    return seen


def all_stages(port: Port, probe: Probe) -> list[Group]:
    """Return every stage of a probe that an implementation shows."""
    probe = port.with_step(probe)
    shown = [port.observe(probe, stage) for stage in KINDS]
    return [group for group in shown if isinstance(group, Group)]


def many_steps(
    port: Port, probe: Probe, sides: Sides, stages: list[str], steps: int, comparison: Comparison
) -> tuple[Stage, Group | None]:
    """Compare some stages of several steps, each from the implementation's own state.

    So rounding does not grow from step to step, and neither does a difference. Returns the largest
    difference of all steps, and the first stage that differs.
    """
    stage = Stage(f"{steps} steps, each from where the implementation is")
    if reason := port.lacking("create", "import_state", "train_step", "export_state"):
        return replace(stage, reason=reason), None
    state, largest = port.state_of(probe), (0.0, "")
    for number in range(1, steps + 1):
        before = port.exported(probe.spec, state)
        if len(before) < len(state_shapes(probe.spec)):
            return replace(stage, reason="export_state() does not return the whole state"), None
        plain = replace(probe.as_drawn(), arrays=before)
        here = port.step(state, _next_probe(plain, number, port.dtype, sides.discriminator))
        for name in (name for name in stages if name in here.shown):
            group = Group(name, here, here.shown[name])
            found, divergence = comparison.compare(group, sides)
            largest = max([largest, *((difference, array) for array, difference in found.items())])
            if divergence is not None and not comparison.is_rounding(group, sides):
                return Stage(stage.name, here.name, *largest, agrees=False), group
    return Stage(stage.name, probe.name, *largest), None


def _next_probe(probe: Probe, number: int, dtype: str, conventions: Conventions) -> Probe:
    """Return the probe with other inputs, in float32 such that are clear of every kink."""
    for draw in range(INPUT_DRAWS):
        _, real, z = representative_inputs(probe.spec, INPUT_DRAWS * number + draw, "explain")
        drawn = replace(probe, name=f"step {number}", real_images=real, latents=z)
        inputs = probe.spec, probe.arrays, real, z, conventions
        if dtype != "float32" or kink_margin(*inputs) >= KINK_MARGIN:
            break
    return drawn


def habits(port: Port, probe: Probe) -> Iterator[str]:
    """Yield what an implementation does that no comparison of numbers can explain.

    A state that does not come back as it was given, one that a call changes which should not, and
    numbers that are others when they are asked for once more.
    """
    if port.lacking("create", "import_state", "export_state"):
        return
    state = port.state_of(probe)
    given = {n: a.astype(port.dtype).astype(np.float64) for n, a in probe.arrays.items()}
    before = port.exported(probe.spec, state)
    if changed := _changed(given, before):
        yield f"export_state() does not return what import_state() was given: {changed}"
        if changed.endswith("/m") and not before[changed].any():
            yield "Adam's moments are 0 after import_state(): they are not restored"
    of_step, (z, real) = (probe.real_images, probe.latents), probe.one_batch
    inputs = {"generate": (z,), "discriminate": (real,), "gradients": of_step}
    for method in (method for method in inputs if not port.lacking(method)):
        port.call(method, state, *inputs[method])
        if changed := _changed(before, port.exported(probe.spec, state)):
            yield f"{method}() changes the state: {changed}"
            return
    if not port.lacking("train_step"):
        yield from _hidden_state(port, probe)


def _hidden_state(port: Port, probe: Probe) -> Iterator[str]:
    """Yield what an implementation keeps beside the state that it exports after a step.

    A state that is given what another one exports must go on as that one does. Gradients that are
    not set to zero, a schedule with its own counter and averaged weights do not show in one step.
    """
    (z, real), trained = probe.one_batch, port.state_of(probe)
    kept = replace(probe, arrays=port.step(trained, probe).after)
    if len(kept.arrays) < len(probe.arrays):
        return
    restored = port.state_of(kept)
    for method, x in (("generate", z), ("discriminate", real)):
        if not port.lacking(method):
            states = (trained, restored, restored)
            own, given, repeated = (port.call(method, state, x) for state in states)
            if not relative_l2(given, repeated) <= SAME_OUTPUT:
                yield f"{method}() {TWICE}"
            elif not relative_l2(own, given) <= SAME_OUTPUT:
                yield f"{method}() after a step has other arrays than export_state()"
    own, given = port.step(trained, probe).after, port.step(restored, probe).after
    if _moved_otherwise(probe.spec, kept.arrays, own, given):
        # Rarely, because a framework may compile a step for each state.
        repeated = port.step(port.state_of(kept), probe).after
        yield (
            f"train_step() {TWICE} from the same state: it draws its own random numbers "
            "(latents, dropout), or counts outside the state"
            if _moved_otherwise(probe.spec, kept.arrays, given, repeated)
            else "a second train_step() depends on something that export_state() does not return, "
            "such as gradients that are not set to zero or a schedule's own counter"
        )


def random_stages(port: Port, probe: Probe, seen: Sequence[Group]) -> set[str]:
    """Return the stages whose numbers differ when an implementation is asked twice.

    Not Adam's, which are held against what the same step returned.
    """
    repeated = all_stages(Port(port.implementation, port.dtype), probe.as_drawn())
    first = {group.stage: group.arrays for group in seen if group.probe.name == probe.name}
    unsure = {*drifting_arrays(probe.spec)}
    judged = (g for g in repeated if not g.stage.startswith(("Adam's", "updated")))
    second = ((g.stage, n, a) for g in judged for n, a in g.arrays.items() if n not in unsure)
    return {stage for stage, n, a in second if not relative_l2(a, first[stage][n]) <= SAME_STEP}


def _moved_otherwise(spec: SystemSpec, before: Arrays, first: Arrays, second: Arrays) -> bool:
    """Whether an array is moved in two ways from where both were; not one that rounding moves."""
    drifting = tuple(name.replace("/", "_optimizer/", 1) for name in drifting_arrays(spec))
    names = (n for n in before if not n.startswith((*drifting, *drifting_arrays(spec))))
    moved = ((first[n], second[n], first[n] - before[n]) for n in names)
    return any(not relative_l2(*arrays) <= SAME_STEP for arrays in moved)


def _changed(before: Arrays, after: Arrays) -> str:
    other = (n for n, a in after.items() if not np.array_equal(before[n], a, equal_nan=True))
    return next(other, "")
