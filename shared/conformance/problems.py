"""What is asked: the losses and Adam by themselves, networks and training steps of narrow systems.

docs/conformance.md lists the names of the cases. Adam is asked for the first update, for one from
the middle of training, and for ten in a row of which each continues from the implementation's own
last one. The learning rate is 1 and parameters are of the size of an update: Adam's own arithmetic
is compared, not the rounding of a small update into a large weight.

Networks start from narrow systems whose numbers are all float32 numbers, so that both dtypes start
from exactly the same point.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.conformance import cases
from shared.conformance.cases import Answers, Case, Override, Problem
from shared.conformance.protocol import ChildSession
from shared.fixtures import LOSS_FIELDS, LossCase, load_loss_cases
from shared.fixtures.network import SEED, SPEC, representative_inputs
from shared.interface import METRIC_NAMES, Array, Arrays
from shared.reference import comparison
from shared.reference.network import forward
from shared.reference.optimizers import adam_update
from shared.reference.step import StepResult, train_step
from shared.spec import NETWORKS, SYSTEMS, AdamSpec, Conventions, NetworkName, SystemSpec
from shared.spec.optimizers import optimizer_to_dict
from shared.spec.state_arrays import cast_floats
from shared.spec.streams import initial_state, stream

DTYPES = ("float64", "float32")
EPSILONS = (1e-8, 1e-7, 1e-3)
# Gradients of every magnitude, to be compared with every epsilon: √v̂ far below it, and far above.
MAGNITUDES = np.geomspace(1e-9, 1.0, 19)
# Start → (number of the first update, how many updates).
STARTS = {"fresh": (1, 1), "mid-training": (8, 1), "ten-updates": (1, 10)}


def function_problems() -> Iterator[Problem]:
    """Yield a problem for each batch of scores and dtype, then for each start of Adam."""
    for case, dtype in itertools.product(load_loss_cases(), DTYPES):
        arguments: dict[str, Any] = {"loss": case.loss, "labels": case.labels}
        for field in ("real_scores", "fake_scores"):
            arguments[field] = getattr(case, field).astype(dtype)

        def ask(session: ChildSession, given: dict[str, Any] = arguments) -> Answers:
            return session.call("loss", given)

        yield Problem(ask, tuple(_loss_case(case, dtype, f) for f in LOSS_FIELDS))
    for start, epsilon, dtype in itertools.product(STARTS, EPSILONS, DTYPES):
        yield _adam_problem(start, AdamSpec(learning_rate=1.0, epsilon=epsilon), dtype)


def _loss_case(case: LossCase, dtype: str, field: str) -> Case:
    truth, what, floor = np.array(case.expected[field], object), "gradient", 0.0
    if field.endswith("gradient"):
        floor = case.tolerance["gradient_floor"]
    else:
        truth, what = truth.reshape(()), "value"
    derivation = (
        f"tolerance.{what} of shared/fixtures/losses.json, whose tolerance_derivation says why: "
        "what the formula reaches for one score, measured, with a margin, and a sum of n numbers "
        "of one sign adds at most n."
    )
    bound = cases.Bound(case.tolerance[what], "ULP", derivation)
    measure = functools.partial(cases.ulp, dtype=dtype, floor=floor)
    declared = {
        known["implementation"]: Override(known["reason"], observed=float(known["observed"]))
        for known in case.divergences
        if field in known["fields"]
    }
    return Case(f"loss/{case.id}/{dtype}/{field}", field, truth, dtype, bound, measure, declared)


def _adam_problem(start: str, settings: AdamSpec, dtype: str) -> Problem:
    first, count = STARTS[start]
    # How large an update, its m and its v are for each of MAGNITUDES.
    update = MAGNITUDES / (MAGNITUDES + settings.epsilon)
    sizes = {"parameter": update, "m": MAGNITUDES, "v": np.square(MAGNITUDES)}
    held = {name: np.zeros(MAGNITUDES.shape, dtype) for name in sizes}
    if start == "mid-training":  # all away from zero
        draw = stream(0, "conformance/adam")
        ranges = {"parameter": (-1.0, 1.0), "m": (-1.0, 1.0), "v": (0.5, 2.0)}
        for name, (low, high) in ranges.items():
            drawn = draw.uniform(low, high, MAGNITUDES.shape)
            held[name] = _as_float32(drawn * sizes[name], dtype)
    gradients = {number: _gradient(number, dtype) for number in range(first, first + count)}

    def ask(session: ChildSession) -> Answers:
        arrays: Answers = held
        answers: Arrays = {}
        for number, gradient in gradients.items():
            inputs = {name: arrays[name] for name in sizes}
            own = {"gradient": gradient, "step": number, "settings": optimizer_to_dict(settings)}
            arrays = session.call("adam", inputs | own)
            answers |= {f"{number}/{name}": arrays[name] for name in sizes}
        return answers

    prefix, found = f"adam/{start}/epsilon-{settings.epsilon:g}/{dtype}", []
    bound = cases.bound_of("adam", dtype)
    parameter, m, v = (array.astype(np.float64) for array in held.values())
    for number, gradient in gradients.items():
        g = gradient.astype(np.float64)
        parameter, m, v = adam_update(parameter, g, (m, v), number, settings, Conventions())
        for (name, size), truth in zip(sizes.items(), (parameter, m, v), strict=True):
            identifier, field = f"{prefix}/update-{number}/{name}", f"{number}/{name}"
            measure = functools.partial(cases.relative, sizes=size)
            found.append(Case(identifier, field, truth, dtype, bound, measure))
    return Problem(ask, tuple(found))


def _gradient(number: int, dtype: str) -> Array:
    """Return one gradient of each magnitude, of either sign."""
    draw = stream(0, "conformance/adam_gradient", number)
    signs = draw.choice([-1.0, 1.0], MAGNITUDES.shape)
    return _as_float32(MAGNITUDES * signs * draw.uniform(0.5, 1.0, MAGNITUDES.shape), dtype)


def _as_float32(array: Array, dtype: str) -> Array:
    """Round to float32's numbers, so that both dtypes start from exactly the same point."""
    return array.astype(np.float32).astype(dtype)


# --- networks and training steps ------------------------------------------------------------------

_MODES = {"training": True, "inference": False}
# Network → what of a start point it takes, its method, and what that takes and returns.
_FORWARD = {
    "generator": ("latents", "generate", "latents", "images"),
    "discriminator": ("real_images", "discriminate", "images", "scores"),
}


@dataclass(frozen=True)
class StartPoint:
    """A state, the images NHWC and latents of one step, and the dtypes that it is good for.

    For float32 no pre-activation may be so near a kink that rounding turns it.
    """

    spec: SystemSpec
    arrays: Arrays
    real_images: Array
    latents: Array
    dtypes: tuple[str, ...]

    @functools.cached_property
    def step(self) -> StepResult:
        """What one step computes, by the float64 reference."""
        return train_step(self.spec, self.arrays, self.real_images, self.latents)


def start_points() -> dict[str, StartPoint]:
    """Return every start point by the name that its cases have."""
    small = {"width": 4, "channels": 3, "latent_dim": 10, "batch_size": 7}
    linear = _drawn(SYSTEMS["dcgan64-lsgan"].replace(width=4, latent_dim=10, batch_size=3), 1902)
    # A channel without weights: pre-activations of exactly 0 show the gradient at a kink.
    linear.arrays["discriminator/conv_1/kernel"][..., 0] = 0.0
    mlp28 = SYSTEMS["mlp28"].replace(**small)
    two_steps = mlp28.replace(discriminator_steps=2, generator_batch="new_latents")
    return {
        "dcgan64": _drawn(SPEC, SEED, purpose="representative"),
        "dcgan64-lsgan": linear,
        # Seven images of three channels: conv28 normalises over the batch alone, and one channel
        # would hide a wrong order of features.
        "conv28": _drawn(SYSTEMS["conv28"].replace(**small)),
        "mlp28": _drawn(mlp28),
        # Goodfellow's Algorithm 1 with k = 2; its kinks are not looked at.
        "mlp28-algorithm-1": _drawn(two_steps, dtypes=("float64",)),
    }


def _drawn(
    spec: SystemSpec, seed: int = 0, dtypes: tuple[str, ...] = DTYPES, purpose: str = "conformance"
) -> StartPoint:
    return StartPoint(spec, *representative_inputs(spec, seed, purpose), dtypes)


def all_problems() -> tuple[Problem, ...]:
    """Return every problem, the quick ones first."""
    points = start_points().items()
    return (*function_problems(), *(p for point in points for p in problems_at(*point)))


def problems_of(spec: SystemSpec) -> list[Problem]:
    """Return the problems of one system, in float64: its kinks are not looked at."""
    return list(problems_at(spec.name, _drawn(spec, dtypes=("float64",))))


def problems_at(name: str, point: StartPoint) -> Iterator[Problem]:
    """Yield the problems of a start point."""
    for dtype in point.dtypes:
        if name == point.spec.name:  # another name is of another step of the same networks
            yield _created(name, point, dtype)
            for mode, network in itertools.product(_MODES, NETWORKS):
                yield _forward(name, point, dtype, mode, network)
            yield _unmoved(name, point, dtype)
        yield _gradients(name, point, dtype)
        yield _step(name, point, dtype)


def _create(session: ChildSession, point: StartPoint, dtype: str) -> int:
    spec = point.spec.to_dict()
    return session.call("create", {"spec": spec, "seed": 3, "dtype": dtype})["state"]


def _load(session: ChildSession, point: StartPoint, dtype: str) -> dict[str, Any]:
    """Return the arguments of a training step: a state at the start point and its inputs."""
    state = _create(session, point, dtype)
    session.call("import_state", {"state": state, "arrays": cast_floats(point.arrays, dtype)})
    images, z = point.real_images.astype(dtype), point.latents.astype(dtype)
    return {"state": state, "real_images": images, "latents": z}


def _exact(identifier: str, field: str, truth: Array, dtype: str) -> Case:
    return Case(identifier, field, truth, dtype, cases.EXACT, cases.different)


def _none(identifier: str, field: str) -> Case:
    """Return the case that an answer counts nothing under this name."""
    return _exact(identifier, field, np.array(0), "int64")


def _with_unexpected(received: Arrays, expected: Arrays) -> Arrays:
    return received | {"unexpected": np.array(len(received.keys() - expected.keys()))}


def _arrays(kind: str, prefix: str, point: StartPoint, dtype: str) -> Iterator[Case]:
    """Yield the case of every gradient of a step, or of every array of the state after it."""
    expected = point.step.gradients if kind == "gradients" else point.step.arrays
    drifting = comparison.drifting_arrays(point.spec) if kind == "state" else ()
    for field, truth in expected.items():
        if field.endswith("_optimizer/step"):
            yield _exact(f"{prefix}/{field}", field, truth, "int64")
            continue
        what = "drift" if field in drifting else kind
        bound = cases.bound_of(what, dtype, point.spec.architecture)

        def measure(actual: Array, _: Array, field: str = field, what: str = what) -> float:
            return _DIFFERENCES[what](point.spec, expected | {field: actual}, expected)[field]

        yield Case(f"{prefix}/{field}", field, truth, dtype, bound, measure)
    yield _none(f"{prefix}/unexpected-arrays", "unexpected")


_DIFFERENCES: dict[str, Callable[..., dict[str, float]]] = {
    "gradients": comparison.gradient_differences,
    "state": comparison.state_differences,
    "drift": functools.partial(comparison.drifts, steps=1),
}


def _created(name: str, point: StartPoint, dtype: str) -> Problem:
    """Constants must be exact, random numbers of their kind, and moments fresh."""
    fresh = initial_state(point.spec, 0)
    parameters = point.spec.parameters("generator") | point.spec.parameters("discriminator")
    prefix = f"create/{name}/{dtype}"

    def ask(session: ChildSession) -> Answers:
        state = _create(session, point, dtype)
        received = session.call("export_state", {"state": state})["arrays"]
        used = [n for n in fresh if n not in parameters and np.any(received.get(n, 0))]
        return _with_unexpected(received, fresh) | {"used": np.array(len(used))}

    def case(field: str) -> Case:
        parameter, identifier = parameters[field], f"{prefix}/{field}"
        if parameter.initializer.distribution == "constant":
            return _exact(identifier, field, fresh[field], dtype)
        return Case(identifier, field, parameter, dtype, cases.KOLMOGOROV, cases.kolmogorov)

    used, unexpected = f"{prefix}/used-moments", f"{prefix}/unexpected-arrays"
    counts = _none(used, "used"), _none(unexpected, "unexpected")
    return Problem(ask, (*(case(field) for field in fresh if field in parameters), *counts))


def _forward(name: str, point: StartPoint, dtype: str, mode: str, network: NetworkName) -> Problem:
    held, method, given, returned = _FORWARD[network]
    training = _MODES[mode]

    def ask(session: ChildSession) -> Answers:
        inputs = _load(session, point, dtype)
        arguments = {"state": inputs["state"], given: inputs[held], "training": training}
        return session.call(method, arguments)

    x, c = getattr(point, held), Conventions()
    truth = forward(point.spec, network, point.arrays, x, c, training=training).output
    identifier, bound = f"network/{name}/{method}/{mode}/{dtype}", cases.bound_of("forward", dtype)
    return Problem(ask, (Case(identifier, returned, truth, dtype, bound, cases.relative),))


def _unmoved(name: str, point: StartPoint, dtype: str) -> Problem:
    """Passes by the batch's statistics must leave the state, running statistics included."""

    def ask(session: ChildSession) -> Answers:
        inputs = _load(session, point, dtype)
        state, training = inputs["state"], {"state": inputs["state"], "training": True}
        session.call("generate", training | {"latents": inputs["latents"]})
        session.call("discriminate", training | {"images": inputs["real_images"]})
        session.call("gradients", inputs)
        after = session.call("export_state", {"state": state})["arrays"]
        shown = [n for n in point.arrays if n in after or "_optimizer/" not in n]
        moved = [n for n in shown if not np.array_equal(after[n], point.arrays[n])]
        return {"moved": np.array(len(moved))}

    return Problem(ask, (_none(f"network/{name}/unmoved/{dtype}", "moved"),))


def _gradients(name: str, point: StartPoint, dtype: str) -> Problem:
    def ask(session: ChildSession) -> Answers:
        received = session.call("gradients", _load(session, point, dtype))["gradients"]
        return _with_unexpected(received, point.step.gradients)

    found = _arrays("gradients", f"network/{name}/gradients/{dtype}", point, dtype)
    return Problem(ask, tuple(found))


def _step(name: str, point: StartPoint, dtype: str) -> Problem:
    prefix = f"step/{name}/{dtype}"

    def ask(session: ChildSession) -> Answers:
        inputs = _load(session, point, dtype)
        metrics = session.call("train_step", inputs)["metrics"]
        if "synchronize" in session.methods:
            session.call("synchronize", {"state": inputs["state"]})
        after = session.call("export_state", {"state": inputs["state"]})["arrays"]
        return _with_unexpected(after, point.step.arrays) | metrics

    kind = (None, cases.bound_of("metrics", dtype), cases.absolute_below_one)
    metrics = ((field, np.array(point.step.metrics[field])) for field in METRIC_NAMES)
    losses = [Case(f"{prefix}/{field}", field, truth, *kind) for field, truth in metrics]
    return Problem(ask, (*losses, *_arrays("state", prefix, point, dtype)))
