"""Asking every problem of an implementation, and what each case's answer makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from shared.conformance.overrides import Override
from shared.conformance.problem import Case, Problem
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
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
FAILURES: tuple[Verdict, ...] = ("fail", "errored", "unexpected pass")


@dataclass(frozen=True)
class Result:
    """The verdict on one case.

    `error` is in the unit of the case's bound, None where nothing could be measured. `limit` is
    the bound that held. `message` holds what was received, or why nothing was.
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
    """Return a result for every case; `advance` is called with how many there are, as they come."""
    results: list[Result] = []
    for problem in problems:
        found = _decide(problem, session, overrides)
        results.extend(found)
        advance(len(found))
    return results


def _decide(problem: Problem, session: Session, overrides: Mapping[str, Override]) -> list[Result]:
    def without_answer(verdict: Verdict, message: str) -> list[Result]:
        return [Result(case, verdict, None, case.bound.limit, message) for case in problem.cases]

    missing = [method for method in problem.methods if method not in session.methods]
    if missing:
        return without_answer("skipped", f"no method {', '.join(missing)}")
    try:
        answers = problem.ask(session)
    except RefusedError as error:
        return without_answer("skipped", f"refused: {error}")
    except (RequestFailedError, SessionEndedError) as error:
        return without_answer("errored", str(error))
    except KeyError as error:
        return without_answer("errored", f"an answer lacks {error}")
    except (TypeError, ValueError) as error:
        return without_answer("errored", f"an answer of another form: {error}")
    return [
        judge(case, answers.get(case.field), session.name, overrides.get(case.id))
        for case in problem.cases
    ]


def judge(case: Case, answer: Any, implementation: str, override: Override | None) -> Result:
    """Return the verdict on one array that an implementation answered, or None."""
    problem = _of_another_kind(case, answer)
    error = None if problem else float(case.measure(answer))
    message = problem or _described(case, answer, error)
    passes = _is_within(error, case.bound.limit)
    verdict: Verdict = "pass" if passes else "fail"
    if override is not None and override.bound is not None:
        verdict = _by_another_bound(case, error, override.bound)
        return Result(case, verdict, error, override.bound, f"{message} ({override.reason})")
    if override is not None:
        verdict = "unexpected pass" if passes else "divergent as declared"
        message = f"{message} (declared: {override.reason})"
    elif declared := case.declared.get(implementation):
        if not problem and np.array_equal(
            answer.astype(np.float64), np.full(case.shape, declared.observed), equal_nan=True
        ):
            verdict = "divergent as declared"
        elif passes:
            verdict = "unexpected pass"
        message = f"{message} (declared {declared.observed}: {declared.reason})"
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


def _is_within(error: float | None, bound: float) -> bool:
    return error is not None and error <= bound  # nan is not


def _described(case: Case, answer: np.ndarray, error: float | None) -> str:
    text = f"off by {error:.3g} {case.bound.unit}"
    if case.truth is None or error == 0.0:
        return text
    return f"{text}; {worst_element(np.atleast_1d(answer), np.atleast_1d(case.truth))}"


def _by_another_bound(case: Case, error: float | None, bound: float) -> Verdict:
    """A looser bound never makes a pass, not even of what the kit's own bound would let pass."""
    if not _is_within(error, bound):
        return "fail"
    return "loosened" if bound > case.bound.limit else "pass"


def counts(results: Iterable[Result]) -> dict[Verdict, int]:
    """Return how many cases have each verdict."""
    found = Counter(result.verdict for result in results)
    return {verdict: found[verdict] for verdict in VERDICTS}


def is_conformant(results: Iterable[Result]) -> bool:
    """Whether nothing failed and at least one case was run."""
    found = {result.verdict for result in results}
    return bool(found - {"skipped"}) and found.isdisjoint(FAILURES)
