"""Asking every problem of an implementation, and what each case's answer makes of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from shared.conformance.overrides import Override
from shared.conformance.problem import Case, Declared, Problem
from shared.conformance.protocol import (
    RefusedError,
    RequestFailedError,
    Session,
    SessionEndedError,
)
from shared.reference.comparison import worst_element

Verdict = Literal[
    "pass",
    "fail",
    "errored",
    "unexpected pass",
    "divergent as declared",
    "loosened",
    "skipped",
]
VERDICTS: tuple[Verdict, ...] = (
    "pass",
    "fail",
    "errored",
    "unexpected pass",
    "divergent as declared",
    "loosened",
    "skipped",
)
FAILURES: tuple[Verdict, ...] = ("fail", "errored", "unexpected pass")
NOT_RUN: tuple[Verdict, ...] = ("errored", "skipped")


@dataclass(frozen=True)
class Result:
    """The verdict on one case.

    `error` is in the unit of the case's bound, None where nothing could be measured. `limit` is
    the bound that held. `message` says what was received, or why nothing was.
    """

    case: Case
    verdict: Verdict
    error: float | None
    limit: float
    message: str


def run(
    problems: Iterable[Problem],
    session: Session,
    overrides: Mapping[str, Override],
    advance: Callable[[int], object] = lambda _: None,
) -> list[Result]:
    """Return a result for every case; `advance` is told of how many there are, as they come."""
    results: list[Result] = []
    for problem in problems:
        found = _decide(problem, session, overrides)
        results.extend(found)
        advance(len(found))
    return results


def _decide(problem: Problem, session: Session, overrides: Mapping[str, Override]) -> list[Result]:
    missing = [method for method in problem.methods if method not in session.methods]
    if missing:
        return _without_answer(problem, "skipped", f"no method {', '.join(missing)}")
    try:
        answers = problem.ask(session)
    except RefusedError as error:
        return _without_answer(problem, "skipped", f"refused: {error}")
    except (RequestFailedError, SessionEndedError) as error:
        return _without_answer(problem, "errored", str(error))
    except KeyError as error:
        return _without_answer(problem, "errored", f"an answer lacks {error}")
    except (TypeError, ValueError) as error:
        return _without_answer(problem, "errored", f"an answer of another form: {error}")
    return [
        judge(case, answers.get(case.field), session.name, overrides.get(case.id))
        for case in problem.cases
    ]


def _without_answer(problem: Problem, verdict: Verdict, message: str) -> list[Result]:
    return [Result(case, verdict, None, case.bound.limit, message) for case in problem.cases]


def judge(case: Case, answer: Any, implementation: str, override: Override | None) -> Result:
    """Return the verdict on one array that an implementation answered, or None."""
    problem = _of_another_kind(case, answer)
    error = None if problem else float(case.measure(answer))
    passes = error is not None and error <= case.bound.limit  # nan does not
    message = problem or _described(case, answer, error)
    declared = case.declared.get(implementation)
    verdict: Verdict
    if override is not None and override.bound is not None:
        verdict = _by_another_bound(case, error, override.bound)
        return Result(case, verdict, error, override.bound, f"{message} ({override.reason})")
    if override is not None:
        verdict = "unexpected pass" if passes else "divergent as declared"
        message = f"{message} (declared: {override.reason})"
    elif declared is not None:
        verdict = "fail" if problem else _as_declared(answer, declared, passes)
        message = f"{message} (declared {declared.observed}: {declared.reason})"
    else:
        verdict = "pass" if passes else "fail"
    return Result(case, verdict, error, case.bound.limit, message)


def _of_another_kind(case: Case, answer: Any) -> str:
    if answer is None:
        return f"the answer has no {case.field!r}"
    if not isinstance(answer, np.ndarray | np.generic):
        return f"received a {type(answer).__name__}, expected an array"
    if answer.shape != case.shape:
        return f"received shape {answer.shape}, expected {case.shape}"
    if case.dtype is not None and answer.dtype != np.dtype(case.dtype):
        return f"received dtype {answer.dtype}, expected {case.dtype}"
    return ""


def _described(case: Case, answer: np.ndarray, error: float | None) -> str:
    text = f"off by {error:.3g} {case.bound.unit}"
    if case.truth is None or error == 0.0:
        return text
    return f"{text}; {worst_element(np.atleast_1d(answer), np.atleast_1d(case.truth))}"


def _by_another_bound(case: Case, error: float | None, bound: float) -> Verdict:
    """A looser bound never makes a pass, not even of what the kit's own bound would let pass."""
    if error is None or not error <= bound:
        return "fail"
    return "loosened" if bound > case.bound.limit else "pass"


def _as_declared(answer: np.ndarray, declared: Declared, passes: bool) -> Verdict:
    observed = np.full(np.shape(answer), declared.observed)
    if np.array_equal(np.asarray(answer, np.float64), observed, equal_nan=True):
        return "divergent as declared"
    return "unexpected pass" if passes else "fail"


def counts(results: Iterable[Result]) -> dict[Verdict, int]:
    """Return how many cases have each verdict."""
    found = Counter(result.verdict for result in results)
    return {verdict: found[verdict] for verdict in VERDICTS}


def is_conformant(results: Iterable[Result]) -> bool:
    """Whether nothing failed and at least one case was run."""
    found = counts(results)
    ran = sum(number for verdict, number in found.items() if verdict not in NOT_RUN)
    return ran > 0 and not any(found[verdict] for verdict in FAILURES)


def finite(number: float | None) -> float | None:
    """Return a number that JSON can hold, or None."""
    return number if number is not None and math.isfinite(number) else None
