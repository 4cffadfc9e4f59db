"""Finding the conventions under which the reference reproduces what an implementation shows.

A best-first search: from the canonical conventions, one field after another is changed, where that
makes more arrays agree. Numbers that are no known value are fitted to one array by Gauss-Newton.
Where no single change helps, pairs are tried.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from shared.explain.catalogue import FIELDS, FITTED, Change, changes, cost_of, with_change
from shared.explain.distance import Comparison, Divergence
from shared.explain.fit import Fit
from shared.explain.observations import Group
from shared.spec import Conventions

BEAM = 6
MOST_CHANGES = 3


@dataclass(frozen=True, order=True)
class Score:
    """How many stages agree before the first that does not, and how many arrays of that one.

    `divergence` is None where all agree.
    """

    groups: int
    arrays: int
    divergence: Divergence | None = field(default=None, compare=False)


class Search:
    """The search over what one implementation has shown of some stages.

    It ends at `deadline`, a time of `time.monotonic`, with what it has found until then.
    """

    def __init__(self, groups: Sequence[Group], comparison: Comparison, deadline: float) -> None:
        self.groups, self.comparison, self.deadline = list(groups), comparison, deadline
        self.tried: dict[Conventions, Score] = {}
        self.changes = changes(groups[0].probe.spec) if groups else []

    def score(self, conventions: Conventions) -> Score:
        """Return how far the reference under these conventions agrees."""
        if conventions not in self.tried:
            self.tried[conventions] = self._walk(conventions)
        return self.tried[conventions]

    def _walk(self, conventions: Conventions) -> Score:
        for number, group in enumerate(self.groups):
            found, divergence = self.comparison.compare(group, conventions)
            if divergence is not None:
                bound = self.comparison.allowed(group.stage)
                return Score(number, sum(d <= bound for d in found.values()), divergence)
        return Score(len(self.groups), 0)

    def solve(self, starts: Iterable[Conventions]) -> list[Conventions]:
        """Return the simplest conventions that reproduce everything; empty where none are found.

        Several where they cannot be distinguished, the simplest first.
        """
        level = list(dict.fromkeys(starts))
        if not self.groups:
            return level[:1]
        for _ in range(MOST_CHANGES + 1):
            if solved := self._solved(level):
                return sorted(solved, key=cost_of)
            level = self._expand(level)
        return []

    def _solved(self, level: Iterable[Conventions]) -> list[Conventions]:
        return [c for c in level if self.score(c).divergence is None]

    def _expand(self, level: list[Conventions]) -> list[Conventions]:
        """Return what agrees further: by known values, then fitted ones, then two at once."""
        better: dict[Conventions, None] = {}
        for ways in (self._neighbours, self._fitted, self._pairs):
            for base in level if ways != self._pairs else level[:2]:
                better |= dict.fromkeys(self._better(base, ways(base)))
            if solved := self._solved(better):
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
        others = (with_change(base, change) for change in self.changes)
        return (other for other in others if other is not None)

    def _fitted(self, base: Conventions) -> Iterator[Conventions]:
        for fitted in FITTED:
            yield from self._fits(base, (fitted,), self._stage_of(base))

    def _pairs(self, base: Conventions) -> Iterator[Conventions]:
        """Yield two changes at once, of those that change the stage at which `base` diverges."""
        stage = self._stage_of(base)
        felt = [change for change in self.changes if self._is_felt(base, change, stage)]
        for first, second in itertools.combinations(felt, 2):
            other = with_change(base.replace(**first), second)
            if other is not None:
                yield other
        for change, fitted in itertools.product(felt, FITTED):
            yield from self._fits(base.replace(**change), (fitted,), stage)
        for fields in itertools.combinations(FITTED, 2):
            yield from self._fits(base, fields, stage)

    def _stage_of(self, base: Conventions) -> Group:
        return self.groups[self.score(base).groups]

    def _is_felt(self, base: Conventions, change: Change, stage: Group) -> bool:
        other = with_change(base, change)
        if other is None:
            return False
        ours, theirs = (self.comparison.expected(stage, c) for c in (base, other))
        return any(
            name not in theirs or not np.array_equal(array, theirs[name], equal_nan=True)
            for name, array in ours.items()
        )

    def _fits(
        self, base: Conventions, fields: tuple[str, ...], group: Group
    ) -> Iterator[Conventions]:
        """Yield `base` with the numbers `fields` fitted to arrays of a group that differ."""
        if any(getattr(base, name) != FIELDS[name] for name in fields):
            return
        bound = self.comparison.allowed(group.stage)
        found = self.comparison.differences(group, base)
        for name in [n for n, d in found.items() if not d <= bound][:2]:
            fitted = Fit(base, fields, self.comparison, group, name).solve()
            if fitted is not None:
                yield fitted
