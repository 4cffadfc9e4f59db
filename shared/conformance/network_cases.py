"""Networks and training steps of narrow systems against the float64 reference.

create/<system>/<dtype>/<array>             how fresh weights are distributed
network/<system>/generate/<mode>/<dtype>    images; mode is training or inference
network/<system>/discriminate/<mode>/<dtype>
network/<system>/unmoved/<dtype>            arrays that forward passes changed
network/<system>/gradients/<dtype>/<array>
step/<system>/<dtype>/<array or loss>       one training step
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from shared.conformance import bounds, measures
from shared.conformance.measures import Measure
from shared.conformance.problem import Answers, Case, Problem
from shared.conformance.protocol import Session
from shared.conformance.start_points import StartPoint, start_points
from shared.interface import METRIC_NAMES
from shared.reference.differences import (
    Arrays,
    drifting_arrays,
    drifts,
    gradient_differences,
    state_differences,
)
from shared.spec import SYSTEMS
from shared.spec.streams import initial_state

_LOADED = ("create", "import_state")
_MODES = {"training": True, "inference": False}


def network_problems() -> Iterator[Problem]:
    """Yield the problems of every start point."""
    for name, point in start_points().items():
        for dtype in point.dtypes:
            if name in SYSTEMS:
                yield _created(name, point, dtype)
                for mode in _MODES:
                    yield _generated(name, point, dtype, mode)
                    yield _discriminated(name, point, dtype, mode)
                yield _unmoved(name, point, dtype)
            yield _gradients(name, point, dtype)
            yield _step(name, point, dtype)


def _load(session: Session, point: StartPoint, dtype: str) -> int:
    """Return an implementation's state at a start point."""
    state = _create(session, point, dtype)
    arrays = {
        name: array if name.endswith("/step") else array.astype(dtype)
        for name, array in point.arrays.items()
    }
    session.call("import_state", {"state": state, "arrays": arrays})
    return state


def _create(session: Session, point: StartPoint, dtype: str) -> int:
    spec = point.spec.to_dict()
    return session.call("create", {"spec": spec, "seed": 3, "dtype": dtype})["state"]


def _of(state: int, point: StartPoint, dtype: str) -> dict:
    """Return the arguments of a training step."""
    images, z = point.real_images.astype(dtype), point.latents.astype(dtype)
    return {"state": state, "real_images": images, "latents": z}


def _exact(identifier: str, field: str, truth: np.ndarray, dtype: str | None) -> Case:
    return Case(
        identifier, field, truth.shape, dtype, bounds.EXACT, measures.different(truth), truth
    )


def _unexpected(identifier: str) -> Case:
    """Return the case that an answer holds no array but the expected ones."""
    return _exact(f"{identifier}/unexpected-arrays", "unexpected", np.array(0), "int64")


def _with_unexpected(received: Arrays, expected: Arrays) -> Arrays:
    return received | {"unexpected": np.array(len(received.keys() - expected.keys()), np.int64)}


def _created(name: str, point: StartPoint, dtype: str) -> Problem:
    fresh = initial_state(point.spec, 0)
    weights = [field for field in fresh if "_optimizer/" not in field]
    prefix = f"create/{name}/{dtype}"

    def ask(session: Session) -> Answers:
        state = _create(session, point, dtype)
        received = session.call("export_state", {"state": state})["arrays"]
        used = [n for n in fresh if n not in weights and np.any(received[n])]
        answers = _with_unexpected(received, fresh)
        return answers | {"used": np.array(len(used), np.int64)}

    cases = [_created_case(f"{prefix}/{field}", point, field, fresh, dtype) for field in weights]
    used = _exact(f"{prefix}/used-moments", "used", np.array(0), "int64")
    return Problem(("create", "export_state"), ask, (*cases, used, _unexpected(prefix)))


def _created_case(
    identifier: str, point: StartPoint, field: str, fresh: Arrays, dtype: str
) -> Case:
    """Return the case of one weight: constants must be exact, random numbers of their kind."""
    parameters = point.spec.parameters("generator") | point.spec.parameters("discriminator")
    parameter = parameters[field]
    if parameter.initializer.distribution == "constant":
        return _exact(identifier, field, fresh[field], dtype)
    measure = measures.kolmogorov(parameter)
    return Case(identifier, field, parameter.shape, dtype, bounds.KOLMOGOROV, measure)


def _generated(name: str, point: StartPoint, dtype: str, mode: str) -> Problem:
    def ask(session: Session) -> Answers:
        arguments = {
            "state": _load(session, point, dtype),
            "latents": point.latents.astype(dtype),
            "training": _MODES[mode],
        }
        return session.call("generate", arguments)

    truth = point.output("generator", training=_MODES[mode])
    case = _output_case(f"network/{name}/generate/{mode}/{dtype}", "images", truth, dtype)
    return Problem((*_LOADED, "generate"), ask, (case,))


def _discriminated(name: str, point: StartPoint, dtype: str, mode: str) -> Problem:
    def ask(session: Session) -> Answers:
        arguments = {
            "state": _load(session, point, dtype),
            "images": point.real_images.astype(dtype),
            "training": _MODES[mode],
        }
        return session.call("discriminate", arguments)

    truth = point.output("discriminator", training=_MODES[mode])
    case = _output_case(f"network/{name}/discriminate/{mode}/{dtype}", "scores", truth, dtype)
    return Problem((*_LOADED, "discriminate"), ask, (case,))


def _output_case(identifier: str, field: str, truth: np.ndarray, dtype: str) -> Case:
    bound = bounds.forward_bound(dtype)
    return Case(identifier, field, truth.shape, dtype, bound, measures.relative(truth), truth)


def _unmoved(name: str, point: StartPoint, dtype: str) -> Problem:
    """Passes by the batch's statistics must leave the state, running statistics included."""

    def ask(session: Session) -> Answers:
        state = _load(session, point, dtype)
        inputs = _of(state, point, dtype)
        training = {"state": state, "training": True}
        session.call("generate", training | {"latents": inputs["latents"]})
        session.call("discriminate", training | {"images": inputs["real_images"]})
        session.call("gradients", inputs)
        after = session.call("export_state", {"state": state})["arrays"]
        moved = [n for n, a in point.arrays.items() if not np.array_equal(after[n], a)]
        return {"moved": np.array(len(moved), np.int64)}

    case = _exact(f"network/{name}/unmoved/{dtype}", "moved", np.array(0), "int64")
    methods = (*_LOADED, "generate", "discriminate", "gradients", "export_state")
    return Problem(methods, ask, (case,))


def _gradients(name: str, point: StartPoint, dtype: str) -> Problem:
    expected = point.step.gradients
    prefix = f"network/{name}/gradients/{dtype}"

    def ask(session: Session) -> Answers:
        inputs = _of(_load(session, point, dtype), point, dtype)
        return _with_unexpected(session.call("gradients", inputs)["gradients"], expected)

    def measure(field: str) -> Measure:
        return lambda actual: gradient_differences(
            point.spec, expected | {field: actual}, expected
        )[field]

    bound = bounds.gradient_bound(point.spec.architecture, dtype)
    cases = [
        Case(f"{prefix}/{field}", field, truth.shape, dtype, bound, measure(field), truth)
        for field, truth in expected.items()
    ]
    return Problem((*_LOADED, "gradients"), ask, (*cases, _unexpected(prefix)))


def _step(name: str, point: StartPoint, dtype: str) -> Problem:
    expected = point.step.arrays
    prefix = f"step/{name}/{dtype}"

    def ask(session: Session) -> Answers:
        state = _load(session, point, dtype)
        metrics = session.call("train_step", _of(state, point, dtype))["metrics"]
        if "synchronize" in session.methods:
            session.call("synchronize", {"state": state})
        after = session.call("export_state", {"state": state})["arrays"]
        return _with_unexpected(after, expected) | metrics

    cases = [_step_case(f"{prefix}/{field}", point, field, dtype) for field in expected]
    losses = [_metric_case(f"{prefix}/{field}", point, field, dtype) for field in METRIC_NAMES]
    methods = (*_LOADED, "train_step", "export_state")
    return Problem(methods, ask, (*losses, *cases, _unexpected(prefix)))


def _step_case(identifier: str, point: StartPoint, field: str, dtype: str) -> Case:
    expected = point.step.arrays
    truth = expected[field]
    if field.endswith("_optimizer/step"):
        return _exact(identifier, field, truth, "int64")
    if field in drifting_arrays(point.spec):
        bound = bounds.drift_bound(dtype)
        found = functools.partial(drifts, point.spec, expected=expected, steps=1)
    else:
        bound = bounds.state_bound(point.spec.architecture, dtype)
        found = functools.partial(state_differences, point.spec, expected=expected)

    def measure(actual: np.ndarray) -> float:
        return found(actual=expected | {field: actual})[field]

    return Case(identifier, field, truth.shape, dtype, bound, measure, truth)


def _metric_case(identifier: str, point: StartPoint, field: str, dtype: str) -> Case:
    truth = point.step.metrics[field]
    measure = measures.absolute_below_one(truth)
    bound = bounds.metric_bound(dtype)
    return Case(identifier, field, (), None, bound, measure, np.array(truth))
