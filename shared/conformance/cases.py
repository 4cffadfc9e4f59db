"""A case is one array of one answer; a problem is what is asked to get the answers of its cases."""

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.conformance.bounds import Bound
from shared.conformance.protocol import Session
from shared.interface import Array
from shared.spec.layers import Parameter

Answers = Mapping[str, Array]


@dataclass(frozen=True)
class Override:
    """What holds for the cases that a pattern matches; `bound` is None for a divergence.

    `observed`: the one number that diverges as declared; None takes any.
    """

    pattern: str
    reason: str
    bound: float | None
    observed: float | None = None


@dataclass(frozen=True)
class Case:
    """One array that has a truth.

    `id` never changes. `field` is its name among the problem's answers. `truth` is what is
    expected: numbers, or a parameter whose distribution they must have. `dtype` None takes any.
    `measure` returns an answer's error in the unit of the bound from answer and truth, nan where
    it has none. `declared`: what holds for implementations of this repository, by their name.
    """

    id: str
    field: str
    truth: Array | Parameter
    dtype: str | None
    bound: Bound
    measure: Callable[[Array, Any], float]
    declared: Mapping[str, Override] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """Requests and the cases that their answers decide; `methods` are those that it needs."""

    methods: tuple[str, ...]
    ask: Callable[[Session], Answers]
    cases: tuple[Case, ...]


def is_of_optimizer(field: str) -> bool:
    """Whether a field is an array of an optimizer, which an implementation need not have."""
    return "_optimizer/" in field


def cases_of(problems: Iterable[Problem]) -> list[Case]:
    """Return the cases of problems in their order."""
    return [case for problem in problems for case in problem.cases]


def matching(identifiers: Iterable[str], pattern: str, option: str = "") -> list[str]:
    """Return the ids that a pattern matches; none is a ValueError that names the option.

    A pattern is an id, or shell wildcards: `*` goes over slashes too.
    """
    found = [i for i in identifiers if i == pattern or fnmatch.fnmatchcase(i, pattern)]
    if not found:
        raise ValueError(
            f"{option}{pattern!r} matches no case; expected an id or a pattern of one, "
            "--list prints them all"
        )
    return found


def selected(problems: Sequence[Problem], patterns: Sequence[str]) -> list[Problem]:
    """Return the problems with the cases that match any pattern; one that matches none raises."""
    identifiers = [case.id for case in cases_of(problems)]
    wanted = {i for pattern in patterns for i in matching(identifiers, pattern, "--select ")}
    kept = [
        dataclasses.replace(p, cases=tuple(case for case in p.cases if case.id in wanted))
        for p in problems
    ]
    return [problem for problem in kept if problem.cases]
