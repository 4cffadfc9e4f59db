"""The loss cases of shared/fixtures/losses.json: `loss/<fixture's id>/<dtype>/<field>`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shared.conformance import bounds, measures
from shared.conformance.problem import Answers, Case, Declared, Problem
from shared.conformance.protocol import Session
from shared.fixtures import LossCase, load_loss_cases
from shared.fixtures.load import LOSS_FIELDS

DTYPES = ("float64", "float32")


def loss_problems() -> Iterator[Problem]:
    """Yield one problem for each batch of scores and dtype, with a case for each of five arrays."""
    for case in load_loss_cases():
        for dtype in DTYPES:
            yield _problem(case, dtype)


def _problem(case: LossCase, dtype: str) -> Problem:
    arguments = {
        "loss": case.loss,
        "real_scores": case.real_scores.astype(dtype),
        "fake_scores": case.fake_scores.astype(dtype),
        "labels": case.labels,
    }

    def ask(session: Session) -> Answers:
        return session.call("loss", arguments)

    return Problem(("loss",), ask, tuple(_case(case, dtype, field) for field in LOSS_FIELDS))


def _case(case: LossCase, dtype: str, field: str) -> Case:
    is_gradient = field.endswith("gradient")
    expected = case.expected[field]
    shape = case.real_scores.shape if is_gradient else ()
    floor = case.tolerance["gradient_floor"] if is_gradient else 0.0
    limit = case.tolerance["gradient" if is_gradient else "value"]
    return Case(
        id=f"loss/{case.id}/{dtype}/{field}",
        field=field,
        shape=shape,
        dtype=dtype,
        bound=bounds.loss_bound(limit, field),
        measure=measures.ulp(expected, dtype, floor),
        truth=np.array([float(number) for number in expected]).reshape(shape),
        declared={
            entry["implementation"]: Declared(float(entry["observed"]), entry["reason"])
            for entry in case.divergences
            if field in entry["fields"]
        },
    )
