"""Asking every problem of an implementation, and what each case's answer makes of it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from shared.conformance.cases import Case, Override, Problem, is_of_optimizer
from shared.conformance.protocol import RefusedError, RequestFailedError, Session, SessionEndedError
from shared.interface import Array
from shared.reference.comparison import worst_element

Verdict = Literal[
    "pass", "fail", "errored", "unexpected pass", "divergent as declared", "loosened", "skipped"
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


def decide(
    problems: Iterable[Problem],
    session: Session,
    overrides: Mapping[str, Override],
    advance: Callable[[int], object] = lambda _: None,
) -> list[Result]:
    """Return a result for every case; `advance` is called with how many there are, as they come."""
    results: list[Result] = []
    for problem in problems:
        results += _answered(problem, session, overrides)
        advance(len(problem.cases))
    return results


def _answered(
    problem: Problem, session: Session, overrides: Mapping[str, Override]
) -> Iterator[Result]:
    missing = [method for method in problem.methods if method not in session.methods]
    verdict: Verdict = "errored"
    try:
        if missing:
            raise RefusedError(f"no method {', '.join(missing)}")
        answers = problem.ask(session)
    except RefusedError as error:
        verdict, message = "skipped", str(error) if missing else f"refused: {error}"
    except (RequestFailedError, SessionEndedError) as error:
        message = str(error)
    except KeyError as error:
        message = f"an answer lacks {error}"
    except (TypeError, ValueError) as error:
        message = f"an answer of another form: {error}"
    else:
        has_optimizer = any(is_of_optimizer(field) for field in answers)
        for case in problem.cases:
            if is_of_optimizer(case.field) and not has_optimizer:
                message = "export_state() returns no array of an optimizer"
                yield Result(case, "skipped", None, case.bound.limit, message)
                continue
            override = overrides.get(case.id)
            yield judge(case, answers.get(case.field), session.name, override)
        return
    for case in problem.cases:
        yield Result(case, verdict, None, case.bound.limit, message)


def judge(case: Case, answer: Any, implementation: str, override: Override | None) -> Result:
    """Return the verdict on one array that an implementation answered, or None."""
    problem = _of_another_kind(case, answer)
    error = None if problem else float(case.measure(answer, case.truth))
    message = problem or _described(case, answer, error)
    limit = case.bound.limit
    passes = _is_within(error, limit)
    verdict: Verdict = "pass" if passes else "fail"
    override = override or case.declared.get(implementation)
    if override is not None and override.bound is not None:
        limit = override.bound
        # A looser bound never makes a pass, not even of what the kit's own bound would let pass.
        within: Verdict = "loosened" if limit > case.bound.limit else "pass"
        verdict = within if _is_within(error, limit) else "fail"
        message = f"{message} ({override.reason})"
    elif override is not None:
        observed = override.observed
        what = "declared" if observed is None else f"declared {observed}"
        message = f"{message} ({what}: {override.reason})"
        if passes:
            verdict = "unexpected pass"
        elif observed is None or (
            not problem and np.array_equal(answer, np.full(answer.shape, observed), equal_nan=True)
        ):
            verdict = "divergent as declared"
    return Result(case, verdict, error, limit, message)


def _of_another_kind(case: Case, answer: Any) -> str:
    if answer is None:
        return f"the answer has no {case.field!r}"
    if not isinstance(answer, np.ndarray | np.generic):
        return f"received a {type(answer).__name__}, expected an array"
    if answer.shape != case.truth.shape:
        return f"received shape {answer.shape}, expected {case.truth.shape}"
    if case.dtype is not None and answer.dtype != np.dtype(case.dtype):
        return f"received dtype {answer.dtype}, expected {case.dtype}"
    return ""


def _is_within(error: float | None, bound: float) -> bool:
    return error is not None and error <= bound  # nan is not


def _described(case: Case, answer: Array, error: float | None) -> str:
    text = f"off by {error:.3g} {case.bound.unit}"
    if not isinstance(case.truth, np.ndarray) or error == 0.0:
        return text
    return f"{text}; {worst_element(np.atleast_1d(answer), np.atleast_1d(case.truth))}"


def counts(results: Iterable[Result]) -> dict[Verdict, int]:
    """Return how many cases have each verdict."""
    found = Counter(result.verdict for result in results)
    return {verdict: found[verdict] for verdict in VERDICTS}


def is_conformant(results: Iterable[Result]) -> bool:
    """Whether nothing failed and at least one case was run."""
    found = {result.verdict for result in results}
    return bool(found - {"skipped"}) and found.isdisjoint(FAILURES)
