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

from shared.explain.catalogue import FIELDS, FITTED, Change, changes, cost_of, with_change
from shared.explain.distance import Comparison
from shared.explain.observations import Group, reference_arrays
from shared.interface import Array
from shared.spec import Conventions

BEAM = 6
MOST_CHANGES = 3
FIT_STEPS = 12
FIT_PART = 1e-4  # the derivative is taken over this part of a number


Score = tuple[int, int]
"""How many stages agree before the first that does not, and how many arrays of that one."""


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
            self.tried[conventions] = len(self.groups), 0
            for number, group in enumerate(self.groups):
                found = self.comparison.differences(group, conventions)
                agree = sum(d <= self.comparison.allowed(group.stage) for d in found.values())
                if agree < len(found):
                    self.tried[conventions] = number, agree
                    break
        return self.tried[conventions]

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
        return [c for c in level if self.score(c)[0] == len(self.groups)]

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
        yield from filter(None, (with_change(base, change) for change in self.changes))

    def _fitted(self, base: Conventions) -> Iterator[Conventions]:
        for name in FITTED:
            yield from self._fits(base, (name,), self._stage_of(base))

    def _pairs(self, base: Conventions) -> Iterator[Conventions]:
        """Yield two changes at once, of those that change the stage at which `base` diverges."""
        stage = self._stage_of(base)
        felt = [change for change in self.changes if _is_felt(base, change, stage)]
        for first, second in itertools.combinations(felt, 2):
            if other := with_change(base.replace(**first), second):
                yield other
        for change, name in itertools.product(felt, FITTED):
            yield from self._fits(base.replace(**change), (name,), stage)
        for names in itertools.combinations(FITTED, 2):
            yield from self._fits(base, names, stage)

    def _stage_of(self, base: Conventions) -> Group:
        return self.groups[self.score(base)[0]]

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


def _is_felt(base: Conventions, change: Change, stage: Group) -> bool:
    other = with_change(base, change)
    if other is None:
        return False
    ours, theirs = (reference_arrays(stage.stage, stage.probe, c) for c in (base, other))
    return any(
        name not in theirs or not np.array_equal(array, theirs[name], equal_nan=True)
        for name, array in ours.items()
    )


@dataclass(frozen=True)
class Fit:
    """Numbers `fields` of `base` that are fitted to the array `name` of a group.

    A point `theta` of a fit has a number for each field, or its logarithm.
    """

    base: Conventions
    fields: tuple[str, ...]
    comparison: Comparison
    group: Group
    name: str

    def solve(self) -> Conventions | None:
        """Return `base` with the roundest numbers that reproduce the array, None without any."""
        spec, received, sizes = self.group.probe.spec, self.group.arrays[self.name], []
        theta = np.array([FITTED[name].start(self.base, spec) for name in self.fields])
        for number in range(FIT_STEPS):
            here = self._array(theta)
            if here is None or here.shape != received.shape:
                return None
            sizes.append(float(np.linalg.norm(received - here)))
            if number >= 4 and sizes[-1] > 0.5 * sizes[-4]:
                return None  # no solution: a right fit converges quadratically
            if number and self._agrees(fitted := self._conventions(theta)):
                return self._rounded(fitted)
            step = self._gauss_newton(theta, received - here)
            if step is None:
                return None
            theta = theta + step
        return None

    def _conventions(self, theta: Array) -> Conventions:
        points = zip(self.fields, map(float, theta), strict=True)
        return self.base.replace(
            **{n: float(np.exp(t)) if FITTED[n].logarithmic else t for n, t in points}
        )

    def _array(self, theta: Array) -> Array | None:
        """Return the reference's array at a point; None if it is not finite."""
        arrays = reference_arrays(self.group.stage, self.group.probe, self._conventions(theta))
        array = arrays.get(self.name)
        return array if array is not None and np.isfinite(array).all() else None

    def _agrees(self, conventions: Conventions) -> bool:
        found = self.comparison.differences(self.group, conventions)
        return found.get(self.name, math.inf) <= self.comparison.allowed(self.group.stage)

    def _gauss_newton(self, theta: Array, residual: Array) -> Array | None:
        columns = []
        for shift in np.diag(FIT_PART * np.maximum(1e-2, np.abs(theta))):
            ahead, behind = self._array(theta + shift), self._array(theta - shift)
            if ahead is None or behind is None:
                return None
            columns.append(((ahead - behind) / (2.0 * shift.sum())).ravel())
        jacobian = np.stack(columns, axis=1)
        if not np.isfinite(jacobian).all() or not jacobian.any(axis=0).all():
            return None  # a field that this array does not depend on
        step = np.linalg.lstsq(jacobian, residual.ravel(), rcond=None)[0]
        largest = np.array([FITTED[name].largest_step for name in self.fields])
        return np.clip(step, -largest, largest)

    def _rounded(self, fitted: Conventions) -> Conventions:
        """Return the same with the roundest numbers that agree as well."""
        for name in self.fields:
            value = getattr(fitted, name)
            rounder = (fitted.replace(**{name: float(f"{value:.{n}e}")}) for n in range(4))
            fitted = next(filter(self._agrees, rounder), fitted)
        return fitted
