"""Every case of the kit, by its id."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import replace

from shared.conformance.adam_cases import adam_problems
from shared.conformance.loss_cases import loss_problems
from shared.conformance.network_cases import network_problems
from shared.conformance.problem import Case, Problem


def all_problems() -> tuple[Problem, ...]:
    """Return every problem, the quick ones first."""
    return (*loss_problems(), *adam_problems(), *network_problems())


def cases_of(problems: Iterable[Problem]) -> list[Case]:
    """Return the cases of problems in their order."""
    return [case for problem in problems for case in problem.cases]


def selected(problems: Iterable[Problem], patterns: Sequence[str]) -> list[Problem]:
    """Return the problems with the cases that match any pattern; one that matches none raises.

    A pattern is an id, or shell wildcards: `*` goes over slashes too.
    """
    problems = list(problems)
    for pattern in patterns:
        if not any(matches(case.id, pattern) for case in cases_of(problems)):
            raise ValueError(
                f"--select {pattern!r} matches no case; expected an id or a pattern of one, "
                "--list prints them all"
            )
    kept = []
    for problem in problems:
        cases = tuple(c for c in problem.cases if any(matches(c.id, p) for p in patterns))
        if cases:
            kept.append(replace(problem, cases=cases))
    return kept


def matches(identifier: str, pattern: str) -> bool:
    """Whether an id is the pattern, or one that its wildcards stand for."""
    return identifier == pattern or fnmatch.fnmatchcase(identifier, pattern)
