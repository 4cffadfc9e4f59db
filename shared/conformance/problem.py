"""A case is one array of one answer; a problem is what is asked to get the answers of its cases."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from shared.conformance.bounds import Bound
from shared.conformance.measures import Measure
from shared.conformance.protocol import Session

Answers = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Declared:
    """What one implementation is known to give instead of the truth, and why."""

    observed: float
    reason: str


@dataclass(frozen=True)
class Case:
    """One array that has a truth.

    `id` never changes. `field` is its name among the problem's answers. `dtype` None takes any.
    `truth` is float64 and may be None where a distribution is compared. `declared` is by the name
    of an implementation of this repository.
    """

    id: str
    field: str
    shape: tuple[int, ...]
    dtype: str | None
    bound: Bound
    measure: Measure
    truth: np.ndarray | None = None
    declared: Mapping[str, Declared] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """Requests and the cases that their answers decide; `methods` are those that it needs."""

    methods: tuple[str, ...]
    ask: Callable[[Session], Answers]
    cases: tuple[Case, ...]
