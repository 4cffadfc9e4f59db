"""Finding the conventions under which the reference reproduces what an implementation shows.

A best-first search: from the canonical conventions, one field after another is changed, where that
makes more arrays agree. Numbers that are no known value are fitted to one array by Gauss-Newton.
Where no single change helps, pairs are tried.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from shared.explain.distance import Parting, allowed, differences, worst
from shared.explain.fit import Target, fit
from shared.explain.observations import Group, ReferenceObserver
from shared.explain.traps import CANONICAL, FITTED, Change, changes, cost_of
from shared.spec import Conventions, SystemSpec

BEAM = 6
MOST_CHANGES = 3


@dataclass(frozen=True, order=True)
class Score:
    """How many stages agree before the first that does not, and how many arrays of that one."""

    groups: int
    arrays: int


class Search:
    """The search over what one implementation has shown of some stages.

    It ends at `deadline`, a time of `time.monotonic`, with what it has found until then.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        reference: ReferenceObserver,
        *,
        dtype: str,
        bound: float,
        deadline: float = math.inf,
    ) -> None:
        self.groups, self.reference = list(groups), reference
        self.dtype, self.bound, self.deadline = dtype, bound, deadline
        self.tried: set[Conventions] = set()
        self._scores: dict[Conventions, tuple[Score, Parting | None]] = {}

    def parting(self, conventions: Conventions) -> Parting | None:
        """Return where the reference under these conventions first parts; None where nowhere."""
        return self._evaluate(conventions)[1]

    def score(self, conventions: Conventions) -> Score:
        """Return how far the reference under these conventions agrees."""
        return self._evaluate(conventions)[0]

    def _evaluate(self, conventions: Conventions) -> tuple[Score, Parting | None]:
        if conventions not in self._scores:
            self.tried.add(conventions)
            self._scores[conventions] = self._walk(conventions)
        return self._scores[conventions]

    def _walk(self, conventions: Conventions) -> tuple[Score, Parting | None]:
        for number, group in enumerate(self.groups):
            found, expected = self._differences(group, conventions)
            parting = worst(group, expected, found, self.bound)
            if parting is not None:
                bound = allowed(group.stage, self.bound)
                agreeing = sum(difference <= bound for difference in found.values())
                return Score(number, agreeing), parting
        return Score(len(self.groups), 0), None

    def _differences(
        self, group: Group, conventions: Conventions
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        expected = self.reference.arrays(group.stage, group.probe, conventions)
        return differences(group, expected, self.dtype), expected

    @property
    def spec(self) -> SystemSpec:
        """The system of the probes."""
        return self.groups[0].probe.spec

    def solve(self, starts: Iterable[Conventions]) -> list[Conventions]:
        """Return the simplest conventions that reproduce everything; empty where none are found.

        Several where they cannot be told apart, the simplest first.
        """
        level = list(dict.fromkeys(starts))
        if not self.groups:
            return level[:1]
        for _ in range(MOST_CHANGES + 1):
            solved = [c for c in level if self.parting(c) is None]
            if solved:
                return sorted(solved, key=cost_of)
            level = self._expand(level)
        return []

    def closest(self) -> Conventions:
        """Return what came furthest of everything that was tried."""
        return max(self._scores, key=lambda c: (self.score(c), -cost_of(c)))

    def _expand(self, level: list[Conventions]) -> list[Conventions]:
        """Return what agrees further: by known values, then fitted ones, then two at once."""
        better: dict[Conventions, None] = {}
        for ways in (self._neighbours, self._fitted, self._pairs):
            for base in level if ways != self._pairs else level[:2]:
                better |= dict.fromkeys(self._better(base, ways(base)))
            solved = [c for c in better if self.parting(c) is None]
            if solved:
                return solved
            if better and ways == self._fitted:
                break
        ranked = sorted(better, key=lambda c: (self.score(c), -cost_of(c)), reverse=True)
        return ranked[:BEAM]

    def _better(self, base: Conventions, others: Iterable[Conventions]) -> Iterator[Conventions]:
        before = self.score(base)
        for other in others:
            if self.score(other) > before:
                yield other
            if time.monotonic() > self.deadline:
                return

    def _neighbours(self, base: Conventions) -> Iterator[Conventions]:
        others = (change.of(base) for change in changes(self.spec))
        return (other for other in others if other is not None)

    def _fitted(self, base: Conventions) -> Iterator[Conventions]:
        for field in FITTED:
            if getattr(base, field) == getattr(CANONICAL, field):
                yield from self._fits(base, (field,))

    def _pairs(self, base: Conventions) -> Iterator[Conventions]:
        """Yield two changes at once, of those that change the stage at which `base` parts."""
        felt = [change for change in changes(self.spec) if self._is_felt(base, change)]
        for first, second in itertools.combinations(felt, 2):
            middle = first.of(base)
            other = None if middle is None else second.of(middle)
            if other is not None:
                yield other
        for change in felt:
            middle = change.of(base)
            if middle is not None:
                for field in FITTED:
                    if getattr(middle, field) == getattr(CANONICAL, field):
                        yield from self._fits(middle, (field,), self._stage_of(base))
        for fields in itertools.combinations(FITTED, 2):
            if all(getattr(base, field) == getattr(CANONICAL, field) for field in fields):
                yield from self._fits(base, fields)

    def _stage_of(self, base: Conventions) -> Group:
        return self.groups[self.score(base).groups]

    def _is_felt(self, base: Conventions, change: Change) -> bool:
        other = change.of(base)
        if other is None:
            return False
        group = self._stage_of(base)
        ours, theirs = (
            self.reference.arrays(group.stage, group.probe, conventions)
            for conventions in (base, other)
        )
        return any(
            name not in theirs or not np.array_equal(array, theirs[name], equal_nan=True)
            for name, array in ours.items()
        )

    def _fits(
        self, base: Conventions, fields: tuple[str, ...], group: Group | None = None
    ) -> Iterator[Conventions]:
        """Yield conventions whose numbers `fields` are fitted to the arrays that part."""
        group = group or self._stage_of(base)
        found, _ = self._differences(group, base)
        bound = allowed(group.stage, self.bound)
        for name in [n for n, d in found.items() if not d <= bound][:2]:
            fitted = fit(base, fields, Target(self.reference, group, name, self.dtype, self.bound))
            if fitted is not None:
                yield fitted
