"""Functions alone, each asked by itself: the losses and Adam.

loss/<batch>/<dtype>/<array>                              shared/fixtures/losses.json
adam/<start>/epsilon-<ε>/<dtype>/update-<n>/<array>       Kingma & Ba 2015, Algorithm 1

Adam is asked for the first update, for one from the middle of training, and for ten in a row of
which each continues from the implementation's own last one. The learning rate is 1 and parameters
are of the size of an update: Adam's own arithmetic is compared, not the rounding of a small update
into a large weight.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from shared.conformance import bounds
from shared.conformance.cases import Answers, Case, Override, Problem
from shared.conformance.protocol import ChildSession
from shared.fixtures import LossCase, load_loss_cases
from shared.fixtures.load import LOSS_FIELDS
from shared.interface import Array, Arrays
from shared.reference.optimizers import adam_update
from shared.spec import AdamSpec, Conventions
from shared.spec.optimizers import optimizer_to_dict
from shared.spec.streams import stream

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
    bound = bounds.Bound(case.tolerance[what], "ULP", derivation)
    measure = functools.partial(bounds.ulp, dtype=dtype, floor=floor)
    identifier = f"loss/{case.id}/{dtype}/{field}"
    declared = {
        known["implementation"]: Override(known["reason"], observed=float(known["observed"]))
        for known in case.divergences
        if field in known["fields"]
    }
    return Case(identifier, field, truth, dtype, bound, measure, declared)


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

    prefix, cases = f"adam/{start}/epsilon-{settings.epsilon:g}/{dtype}", []
    bound = bounds.bound_of("adam", dtype)
    parameter, m, v = (array.astype(np.float64) for array in held.values())
    for number, gradient in gradients.items():
        g = gradient.astype(np.float64)
        parameter, m, v = adam_update(parameter, g, (m, v), number, settings, Conventions())
        for (name, size), truth in zip(sizes.items(), (parameter, m, v), strict=True):
            identifier, field = f"{prefix}/update-{number}/{name}", f"{number}/{name}"
            measure = functools.partial(bounds.relative, sizes=size)
            cases.append(Case(identifier, field, truth, dtype, bound, measure))
    return Problem(ask, tuple(cases))


def _gradient(number: int, dtype: str) -> Array:
    """Return one gradient of each magnitude, of either sign."""
    draw = stream(0, "conformance/adam_gradient", number)
    signs = draw.choice([-1.0, 1.0], MAGNITUDES.shape)
    return _as_float32(MAGNITUDES * signs * draw.uniform(0.5, 1.0, MAGNITUDES.shape), dtype)


def _as_float32(array: Array, dtype: str) -> Array:
    """Round to float32's numbers, so that both dtypes start from exactly the same point."""
    return array.astype(np.float32).astype(dtype)
