"""A case is one array of one answer; a problem is what is asked to get the answers of its cases.

How far an answer may be from the truth is in bounds.toml. A downstream project has its own word on
cases: a declared divergence, or another bound.
"""

import dataclasses
import fnmatch
import math
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from shared.conformance.protocol import ChildSession
from shared.files.documents import read_document
from shared.files.errors import refused_as
from shared.interface import Array
from shared.reference.comparison import relative_l2, ulp_error
from shared.spec.layers import Initializer, Parameter

Answers = Mapping[str, Array]


@dataclass(frozen=True)
class Bound:
    """The largest error that passes, its unit and its derivation."""

    limit: float
    unit: str
    derivation: str


_TABLE = tomllib.loads(Path(__file__).with_name("bounds.toml").read_text("utf-8"))


def bound_of(kind: str, dtype: str = "", architecture: str = "") -> Bound:
    """Return the bound of a kind of array, a table of bounds.toml."""
    entry, own = _TABLE[kind], f"{architecture}_{dtype}"
    if own in entry:
        return Bound(entry[own], entry["unit"], _TABLE["derivations"][own])
    limit = entry[dtype] if dtype else entry["limit"]
    return Bound(limit, entry["unit"], _TABLE["derivations"][entry["derivation"]])


EXACT, KOLMOGOROV = bound_of("exact"), bound_of("kolmogorov")


@dataclass(frozen=True)
class Override:
    """What holds for matching cases: a bound, or a divergence, if `observed` to this number."""

    reason: str
    bound: float | None = None
    observed: float | None = None


@dataclass(frozen=True)
class Case:
    """One array that has a truth: numbers, or a parameter whose distribution it must have.

    `id` never changes. `field` is its name among the problem's answers. `dtype` None takes any.
    `measure` returns an answer's error in the unit of the bound, nan where it has none. `declared`:
    what holds for implementations of this repository, by their name.
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
    """Requests and the cases that their answers decide."""

    ask: Callable[[ChildSession], Answers]
    cases: tuple[Case, ...]


def cases_of(problems: Iterable[Problem]) -> list[Case]:
    """Return the cases of problems in their order."""
    return [case for problem in problems for case in problem.cases]


def matching(identifiers: Iterable[str], pattern: str, option: str = "") -> list[str]:
    """Return the ids that shell wildcards match, over slashes too; ValueError for none."""
    found = [i for i in identifiers if i == pattern or fnmatch.fnmatchcase(i, pattern)]
    if not found:
        raise ValueError(f"{option}{pattern!r}, which matches no case; --list prints all")
    return found


def selected(problems: Sequence[Problem], patterns: Sequence[str]) -> list[Problem]:
    """Return the problems with the cases that match any pattern; one that matches none raises."""
    identifiers = [case.id for case in cases_of(problems)]
    wanted = {i for pattern in patterns for i in matching(identifiers, pattern, "--select ")}
    kept = ((p, tuple(case for case in p.cases if case.id in wanted)) for p in problems)
    return [dataclasses.replace(problem, cases=cases) for problem, cases in kept if cases]


# --- overrides ----

_EXPECTED = (
    'a table by case id or pattern, one at most for each case, {"divergent": true, "reason": "…"} '
    'or {"bound": 1e-9, "reason": "…"}, with a finite bound of at least 0 and a reason'
)
_LARGEST = sys.float_info.max


def load_overrides(path: Path, identifiers: Sequence[str]) -> dict[str, Override]:
    """Return each case's override from a TOML or JSON file; InputError, which names it."""
    found: dict[str, Override] = {}
    with refused_as(path, _EXPECTED):
        for pattern, entry in read_document(path).items():
            override = _override(pattern, entry)
            for name in matching(identifiers, pattern):
                if name in found:
                    raise ValueError(f"{pattern!r} and an earlier pattern for {name}")
                found[name] = override
    return found


def _override(pattern: str, entry: Any) -> Override:
    match entry:
        case {"divergent": True, "reason": str(reason), **rest} if reason.strip() and not rest:
            return Override(reason.strip())
        case {"bound": int(bound) | float(bound), "reason": str(reason), **rest} if (
            reason.strip() and not rest and type(bound) is not bool and 0 <= bound <= _LARGEST
        ):
            return Override(reason.strip(), float(bound))
    raise ValueError(f"{entry!r} for {pattern!r}")


# --- the error of an answer, in the unit of its bound; nan where it has none --------------------


def ulp(actual: Array, truth: Array, *, dtype: str, floor: float = 0.0) -> float:
    """Return the largest error of any number in ULP; the truth is an array of ExactNumber."""
    pairs = zip(np.ravel(actual), np.ravel(truth), strict=True)
    return max(ulp_error(number, exact, dtype, floor=floor) for number, exact in pairs)


def relative(actual: Array, truth: Array, *, sizes: Array | float = 1.0) -> float:
    """Return the relative L2 error, every number first divided by its own size."""
    return relative_l2(np.asarray(actual, np.float64) / sizes, truth / sizes)


def different(actual: Array, truth: Array) -> float:
    """Return how many numbers are not the same."""
    return float(np.count_nonzero(actual != truth))


def absolute_below_one(actual: Array, truth: Array) -> float:
    """Return |actual - truth| over max(1, |truth|)."""
    return float(abs(actual - truth) / max(1.0, abs(truth)))


def kolmogorov(actual: Array, truth: Parameter) -> float:
    """Return √n times Kolmogorov's distance from the parameter's law; inf outside its support."""
    law = truth.initializer
    if law.distribution == "uniform_fan_in":
        law = Initializer("uniform", 0.0, truth.fan_in**-0.5)
    laws = {"uniform": stats.uniform(-1.0, 2.0), "truncated_normal": stats.truncnorm(-2.0, 2.0)}
    standard = laws.get(law.distribution, stats.norm())
    drawn = (actual.astype(np.float64).ravel() - law.mean) / law.scale
    # A float32 number may lie outside by its own rounding.
    if not np.isfinite(drawn).all() or np.abs(drawn).max() > standard.support()[1] + 1e-6:
        return math.inf
    found = stats.ks_1samp(drawn, standard.cdf, method="asymp")
    return math.sqrt(drawn.size) * float(found.statistic)
