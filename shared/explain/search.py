"""Finding the conventions under which the reference reproduces one stage of an implementation.

A best-first search: from what is found already, one field after another is changed, where that
makes more arrays agree. Numbers that are no known value are fitted to one array by Gauss-Newton.
Where no single change helps, pairs are tried. What it costs is counted, not timed.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from shared.explain.catalogue import FIELDS, FITTED, Change, cost_of
from shared.explain.distance import Comparison
from shared.explain.observations import Group, Sides, reference_arrays
from shared.explain.stages import KINDS
from shared.interface import Array

BEAM = 6
MOST_CHANGES = 3
FIT_STEPS = 12
FIT_PART = 1e-4  # the derivative is taken over this part of a number
MOST_WORK = 2500
_DEAR = 4  # times as dear is a stage of a step

Side = Literal["generator", "discriminator", "both"]
Score = tuple[int, int]
"""How many groups agree before the first that does not, and how many arrays of that one."""


def with_change(base: Sides, change: Change, side: Side) -> Sides | None:
    """Return `base` with a change of one side or both; None where it has one of the fields."""
    own = {name: c for name, c in base._asdict().items() if side in (name, "both")}
    if any(getattr(c, name) != FIELDS[name] for c in own.values() for name in change):
        return None
    return base._replace(**{name: c.replace(**change) for name, c in own.items()})


@dataclass
class Search:
    """The search over the groups of one stage; `changes` are those that can show in it."""

    groups: Sequence[Group]
    comparison: Comparison
    changes: Sequence[Change]
    side: Side
    work: int = field(default_factory=lambda: MOST_WORK)
    tried: dict[Sides, Score] = field(default_factory=dict)

    @property
    def fitted_fields(self) -> list[str]:
        """The numbers among the fields that can show."""
        return [name for name in FITTED if any(name in change for change in self.changes)]

    def score(self, sides: Sides) -> Score:
        """Return how far the reference under these conventions agrees."""
        if sides not in self.tried:
            self.tried[sides] = len(self.groups), 0
            for number, group in enumerate(self.groups):
                self.spend()
                found = self.comparison.differences(group, sides)
                agree = sum(d <= self.comparison.allowed(group.stage) for d in found.values())
                if agree < len(found):
                    self.tried[sides] = number, agree
                    break
        return self.tried[sides]

    def spend(self) -> None:
        """Count one stage that the reference computes."""
        self.work -= _DEAR if "step" in KINDS[self.groups[0].stage].parts else 1

    def agreeing(self, several: Iterable[Sides]) -> list[Sides]:
        """Return those under which every array agrees."""
        return [sides for sides in several if self.score(sides)[0] == len(self.groups)]

    def solve(self, starts: Iterable[Sides]) -> list[Sides]:
        """Return the simplest conventions that reproduce everything; empty where none are found.

        Several where they cannot be distinguished, the simplest first.
        """
        level = list(dict.fromkeys(starts))
        for _ in range(MOST_CHANGES + 1):
            if solved := self.agreeing(level):
                return sorted(solved, key=cost_of)
            if self.work <= 0:
                break
            level = self._expand(level)
        return []

    def _expand(self, level: list[Sides]) -> list[Sides]:
        """Return what agrees further: by known values, then fitted ones, then two at once."""
        better: dict[Sides, None] = {}
        for ways in (self._neighbours, self._fitted, self._pairs):
            for base in level if ways != self._pairs else level[:2]:
                better |= dict.fromkeys(self._better(base, ways(base)))
            if solved := self.agreeing(better):
                return solved
            if better and ways == self._fitted:
                break
        ranked = sorted(better, key=lambda sides: (self.score(sides), -cost_of(sides)))
        return ranked[::-1][:BEAM]

    def _better(self, base: Sides, others: Iterable[Sides]) -> Iterator[Sides]:
        before = self.score(base)
        for other in others:
            if self.score(other) > before:
                yield other
            if self.work <= 0:
                return

    def _neighbours(self, base: Sides) -> Iterator[Sides]:
        others = (with_change(base, change, self.side) for change in self.changes)
        yield from filter(None, others)

    def _fitted(self, base: Sides) -> Iterator[Sides]:
        for name in self.fitted_fields:
            yield from self._fits(base, (name,))

    def _pairs(self, base: Sides) -> Iterator[Sides]:
        """Yield two changes at once, of those that change the group at which `base` diverges."""
        felt = [change for change in self.changes if self._is_felt(base, change)]
        for first, second in itertools.combinations(felt, 2):
            one = with_change(base, first, self.side)
            if one is not None and (other := with_change(one, second, self.side)):
                yield other
        names = [name for name in self.fitted_fields if any(name in change for change in felt)]
        for change, name in itertools.product(felt, names):
            if name not in change and (one := with_change(base, change, self.side)):
                yield from self._fits(one, (name,))
        for two in itertools.combinations(names, 2):
            yield from self._fits(base, two)

    def _is_felt(self, base: Sides, change: Change) -> bool:
        other, group = with_change(base, change, self.side), self._group_of(base)
        if other is None:
            return False
        ours, theirs = (reference_arrays(group.stage, group.probe, c) for c in (base, other))
        return any(
            name not in theirs or not np.array_equal(array, theirs[name], equal_nan=True)
            for name, array in ours.items()
        )

    def _group_of(self, base: Sides) -> Group:
        return self.groups[self.score(base)[0]]

    def _fits(self, base: Sides, fields: tuple[str, ...]) -> Iterator[Sides]:
        """Yield `base` with the numbers `fields` fitted to arrays of a group that differ."""
        if with_change(base, dict.fromkeys(fields), self.side) is None:
            return
        group = self._group_of(base)
        for name in self.comparison.differing(group, base)[:2]:
            if self.work > 0 and (fitted := Fit(self, base, fields, group, name).solve()):
                yield fitted


@dataclass(frozen=True)
class Fit:
    """Numbers `fields` of `base` that are fitted to the array `name` of a group.

    A point `theta` of a fit has a number for each field, or its logarithm.
    """

    search: Search
    base: Sides
    fields: tuple[str, ...]
    group: Group
    name: str

    def solve(self) -> Sides | None:
        """Return `base` with the roundest numbers that reproduce the array, None without any."""
        spec, received, sizes = self.group.probe.spec, self.group.arrays[self.name], []
        start = self.base.generator if self.search.side == "generator" else self.base.discriminator
        theta = np.array([FITTED[name].start(start, spec) for name in self.fields])
        for number in range(FIT_STEPS):
            here = self._array(theta)
            if here is None or here.shape != received.shape:
                return None
            sizes.append(float(np.linalg.norm(received - here)))
            if number >= 4 and sizes[-1] > 0.5 * sizes[-4]:
                return None  # no solution: a right fit converges quadratically
            if number and self._agrees(fitted := self._values(theta)):
                return self._sides(self._rounded(fitted))
            step = self._gauss_newton(theta, received - here)
            if step is None:
                return None
            theta = theta + step
        return None

    def _values(self, theta: Array) -> Change:
        points = zip(self.fields, map(float, theta), strict=True)
        return {n: float(np.exp(t)) if FITTED[n].logarithmic else t for n, t in points}

    def _sides(self, values: Change) -> Sides:
        sides = with_change(self.base, values, self.search.side)
        assert sides is not None  # `Search._fits` has asked
        return sides

    def _array(self, theta: Array) -> Array | None:
        """Return the reference's array at a point; None if it is not finite."""
        self.search.spend()
        sides = self._sides(self._values(theta))
        array = reference_arrays(self.group.stage, self.group.probe, sides).get(self.name)
        return array if array is not None and np.isfinite(array).all() else None

    def _agrees(self, values: Change) -> bool:
        comparison = self.search.comparison
        found = comparison.differences(self.group, self._sides(values))
        return found.get(self.name, math.inf) <= comparison.allowed(self.group.stage)

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

    def _rounded(self, fitted: Change) -> Change:
        """Return the same with the roundest numbers that agree as well."""
        for name, value in fitted.items():
            rounder = (fitted | {name: float(f"{value:.{n}e}")} for n in range(4))
            fitted = next(filter(self._agrees, rounder), fitted)
        return fitted
