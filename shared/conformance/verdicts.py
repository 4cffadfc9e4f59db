"""Asking every problem of an implementation, what each case's answer makes of it, and reports."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from xml.etree import ElementTree

import numpy as np
from rich.console import Console

from shared.conformance.cases import Case, Override, Problem
from shared.conformance.protocol import ChildSession, RequestError
from shared.files.child_process import ChildEndedError
from shared.files.errors import printable
from shared.interface import Array
from shared.reference.comparison import worst_element
from shared.run.console import text_table

Verdict = Literal[
    "pass", "fail", "errored", "unexpected pass", "divergent as declared", "loosened", "skipped"
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
FAILURES: tuple[Verdict, ...] = ("fail", "errored", "unexpected pass")


@dataclass(frozen=True)
class Result:
    """The verdict on one case by `limit`; `error` in the bound's unit, None if unmeasurable."""

    case: Case
    verdict: Verdict
    error: float | None
    limit: float
    message: str


def decide(
    problems: Iterable[Problem], session: ChildSession, overrides: Mapping[str, Override]
) -> list[Result]:
    """Return a result for every case."""
    return [result for p in problems for result in _answered(p, session, overrides)]


def _answered(
    problem: Problem, session: ChildSession, overrides: Mapping[str, Override]
) -> Iterator[Result]:
    verdict: Verdict = "errored"
    try:
        answers = problem.ask(session)
    except RequestError as error:
        verdict, message = "skipped" if error.is_refusal else "errored", str(error)
    except ChildEndedError as error:
        message = str(error)
    except KeyError as error:
        message = f"an answer lacks {error}"
    except (AttributeError, TypeError, ValueError) as error:
        message = f"an answer of another form: {error}"
    else:
        has_optimizer = any("_optimizer/" in field for field in answers)
        for case in problem.cases:
            if "_optimizer/" in case.field and not has_optimizer:
                message = "export_state() returns no array of an optimizer"
                yield Result(case, "skipped", None, case.bound.limit, message)
                continue
            yield judge(case, answers.get(case.field), session.name, overrides.get(case.id))
        return
    for case in problem.cases:
        yield Result(case, verdict, None, case.bound.limit, message)


def judge(case: Case, answer: Any, implementation: str, override: Override | None) -> Result:
    """Return the verdict on one array that an implementation answered, or None."""
    problem = _of_another_kind(case, answer)
    error = None if problem else float(case.measure(answer, case.truth))
    message = problem or _described(case, answer, error)
    override = override or case.declared.get(implementation)
    limit = case.bound.limit if override is None or override.bound is None else override.bound
    passes = error is not None and error <= limit  # nan is not
    verdict: Verdict = "pass" if passes else "fail"
    if override is None:
        return Result(case, verdict, error, limit, message)
    observed = override.observed
    what = "" if observed is None else f"declared {observed}: "
    if override.bound is not None:
        # A looser bound never makes a pass, not even of what the kit's own bound would let pass.
        verdict = "loosened" if passes and limit > case.bound.limit else verdict
    elif passes:
        verdict = "unexpected pass"
    elif observed is None or (
        not problem and np.array_equal(answer, np.full(answer.shape, observed), equal_nan=True)
    ):
        verdict = "divergent as declared"
    return Result(case, verdict, error, limit, f"{message} ({what}{override.reason})")


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


# --- reports: for a terminal, as JSON, as JUnit XML ---------------------------------------------

SHOWN = 20
# Anything else cannot be in an XML 1.0 document, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_JUNIT_TAGS = {"fail": "failure", "unexpected pass": "failure", "errored": "error"}
# JUnit has no word for the last two; they are not passes, so a reader counts them as skipped.
_JUNIT_TAGS |= dict.fromkeys(("skipped", "divergent as declared", "loosened"), "skipped")


def print_summary(name: str, results: Sequence[Result], console: Console) -> None:
    """Print a table by kind of case, why cases were skipped, the first failures, the headline."""

    def show(text: str) -> None:
        # What a process wrote may hold escape sequences and lone surrogates.
        console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    kinds = dict.fromkeys(map(_kind, results))
    columns = [counts(r for r in results if _kind(r) == kind).values() for kind in kinds]
    rows = [[v, *(str(n or "") for n in row)] for v, *row in zip(VERDICTS, *columns, strict=True)]
    table = text_table([["cases", *kinds], *rows], "<" + ">" * len(kinds))
    console.print(table, markup=False, highlight=False, soft_wrap=True)
    for verdict in ("skipped", "divergent as declared", "loosened"):
        reasons = Counter(r.message for r in results if r.verdict == verdict)
        for reason, number in reasons.most_common(SHOWN):
            show(f"{verdict}, {number}: {reason}")
        if len(reasons) > SHOWN:
            show(f"{verdict}: {len(reasons) - SHOWN} more reasons")
    failures = [result for result in results if result.verdict in FAILURES]
    for result in failures[:SHOWN]:
        show(f"{result.verdict}: {result.case.id}: {result.message}")
        show(f"    bound {result.limit:g} {result.case.bound.unit}")
    if len(failures) > SHOWN:
        show(f"… and {len(failures) - SHOWN} more; --json FILE holds them all")
    show(f"{name}: {', '.join(f'{n} {verdict}' for verdict, n in counts(results).items())}")
    if all(result.verdict == "skipped" for result in results):
        show("no case was run")


def _kind(result: Result) -> str:
    return result.case.id.split("/", 1)[0]


def write_json(path: Path, name: str, results: Sequence[Result]) -> None:
    """Write the counts and every case with its error, bound, derivation and message."""
    document = {
        "format": "gan-conformance-report",
        "format_version": 1,
        "implementation": name,
        "conformant": is_conformant(results),
        "counts": counts(results),
        "cases": [
            {
                "id": r.case.id,
                "verdict": r.verdict,
                "error": r.error if r.error is not None and math.isfinite(r.error) else None,
                "bound": r.limit,
                "own_bound": r.case.bound.limit,
                "unit": r.case.bound.unit,
                "derivation": r.case.bound.derivation,
                "message": r.message,
            }
            for r in results
        ],
    }
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", "utf-8")


def write_junit(path: Path, name: str, results: Sequence[Result]) -> None:
    """Write JUnit XML: one suite, a test case for each case, named by its id."""
    tags = Counter(_JUNIT_TAGS.get(result.verdict) for result in results)
    fields = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    numbers = {"tests": str(len(results))} | {n: str(tags[tag]) for n, tag in fields.items()}
    root = ElementTree.Element("testsuites", numbers)
    suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(name)} | numbers)
    for result in results:
        attributes = {"classname": f"conformance.{_kind(result)}", "name": _xml(result.case.id)}
        element = ElementTree.SubElement(suite, "testcase", attributes)
        if tag := _JUNIT_TAGS.get(result.verdict):
            message = _xml(f"{result.verdict}: {result.message}")
            ElementTree.SubElement(element, tag, {"message": message})
    ElementTree.indent(root, " ")
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
