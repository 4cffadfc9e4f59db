"""Adam alone, Kingma & Ba 2015, Algorithm 1: `adam/<start>/epsilon-<ε>/<dtype>/<update>/<array>`.

From a fresh start (the first update), from the middle of training, and ten updates in a row of
which each continues from the implementation's own last one. The learning rate is 1 and parameters
are of the size of an update: Adam's own arithmetic is compared, not the rounding of a small update
into a large weight.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from shared.conformance import bounds, measures
from shared.conformance.problem import Answers, Case, Problem
from shared.conformance.protocol import Session
from shared.reference.adam import adam_update
from shared.spec import AdamSpec, Conventions
from shared.spec.streams import stream

DTYPES = ("float64", "float32")
EPSILONS = (1e-8, 1e-7, 1e-3)
# Gradients of every magnitude, to be compared with every epsilon: √v̂ far below it, and far above.
MAGNITUDES = np.geomspace(1e-9, 1.0, 19)
# Start → (number of the first update, how many updates).
STARTS = {"fresh": (1, 1), "mid-training": (8, 1), "ten-updates": (1, 10)}
FIELDS = ("parameter", "m", "v")

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def adam_problems() -> Iterator[Problem]:
    """Yield one problem for each start, epsilon and dtype."""
    for start, epsilon, dtype in itertools.product(STARTS, EPSILONS, DTYPES):
        yield _problem(start, AdamSpec(learning_rate=1.0, epsilon=epsilon), dtype)


def _problem(start: str, settings: AdamSpec, dtype: str) -> Problem:
    first, count = STARTS[start]
    numbers = range(first, first + count)
    held = _start(start, settings, dtype)
    gradients = [_gradient(number, dtype) for number in numbers]

    def ask(session: Session) -> Answers:
        arrays: Answers = dict(zip(FIELDS, held, strict=True))
        answers: dict[str, np.ndarray] = {}
        for number, gradient in zip(numbers, gradients, strict=True):
            inputs = {name: arrays[name] for name in FIELDS}
            own = {"gradient": gradient, "step": number, "settings": dataclasses.asdict(settings)}
            arrays = session.call("adam", inputs | own)
            answers |= {f"{number}/{name}": arrays[name] for name in FIELDS}
        return answers

    prefix = f"adam/{start}/epsilon-{settings.epsilon:g}/{dtype}"
    return Problem(("adam",), ask, tuple(_cases(prefix, settings, dtype, held, gradients, first)))


def _cases(
    prefix: str,
    settings: AdamSpec,
    dtype: str,
    held: Arrays,
    gradients: list[np.ndarray],
    first: int,
) -> Iterator[Case]:
    sizes = (_update_size(settings), MAGNITUDES, np.square(MAGNITUDES))
    parameter, m, v = (array.astype(np.float64) for array in held)
    for number, gradient in enumerate(gradients, first):
        g = gradient.astype(np.float64)
        parameter, m, v = adam_update(parameter, g, (m, v), number, settings, Conventions())
        for name, truth, size in zip(FIELDS, (parameter, m, v), sizes, strict=True):
            yield Case(
                id=f"{prefix}/update-{number}/{name}",
                field=f"{number}/{name}",
                shape=truth.shape,
                dtype=dtype,
                bound=bounds.adam_bound(dtype),
                measure=measures.relative(truth, size),
                truth=truth,
            )


def _update_size(settings: AdamSpec) -> np.ndarray:
    return MAGNITUDES / (MAGNITUDES + settings.epsilon)


def _start(start: str, settings: AdamSpec, dtype: str) -> Arrays:
    """Return parameter, m and v: zero, or all away from it."""
    if start != "mid-training":
        zeros = np.zeros(MAGNITUDES.shape, dtype)
        return zeros, zeros, zeros
    draw = stream(0, "conformance/adam")
    parameter, m = (draw.uniform(-1.0, 1.0, MAGNITUDES.shape) for _ in range(2))
    v = draw.uniform(0.5, 2.0, MAGNITUDES.shape)
    sized = (parameter * _update_size(settings), m * MAGNITUDES, v * np.square(MAGNITUDES))
    return tuple(array.astype(np.float32).astype(dtype) for array in sized)  # type: ignore[return-value]


def _gradient(number: int, dtype: str) -> np.ndarray:
    """Return one gradient of each magnitude, of either sign, that float32 can hold."""
    draw = stream(0, "conformance/adam_gradient", number)
    signs = draw.choice([-1.0, 1.0], MAGNITUDES.shape)
    sized = MAGNITUDES * signs * draw.uniform(0.5, 1.0, MAGNITUDES.shape)
    return sized.astype(np.float32).astype(dtype)
