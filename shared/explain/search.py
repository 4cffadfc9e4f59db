"""Finding the conventions under which the reference reproduces one stage of an implementation.

A best-first search: from what is found already, one field after another is changed, where that
makes more arrays agree. Numbers that are no known value are fitted to one array by Gauss-Newton.
Where no single change helps, pairs are tried. What it costs is counted, not timed. Then what is
found has to show something before it is a name, and of a stage that has none the numbers are given.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from shared.explain import catalogue, observations
from shared.explain.catalogue import FIELDS, FITTED, KINDS, Change, deviations, needed_by, part_of
from shared.explain.distance import Comparison
from shared.explain.observations import START, Group, Sides, differing_arrays, reference_arrays
from shared.explain.report import Located
from shared.interface import Array

BEAM = 6
MOST_CHANGES = 3
FIT_STEPS = 12
FIT_PART = 1e-4  # the derivative is taken over this part of a number
MOST_WORK = 9000
LEAST_NUMBERS = 10
"""So many independent numbers a fitted one must explain."""

Move = tuple[Iterable[Change], Sequence[str]]
"""Changes to make, and then the fields whose numbers are fitted."""
Side = Literal["generator", "discriminator", "both"]
Score = tuple[int, int]
"""How many groups agree before the first that does not, and how many arrays of that one."""


def with_change(base: Sides, change: Change, side: Side) -> Sides | None:
    """Return `base` with a change of one side or both.

    None where it has one of the fields, or would clip scaled gradients: of any sign at all a large
    scale and a bound make the same.
    """
    own = {name: c for name, c in base._asdict().items() if side in (name, "both")}
    if any(getattr(c, name) != FIELDS[name] for c in own.values() for name in change):
        return None
    made = {name: c.replace(**change) for name, c in own.items()}
    scales = {getattr(c, f"{name}_gradient_scale") for name, c in made.items()}
    is_clipped = any(c.gradient_clipping != "none" for c in made.values())
    return None if is_clipped and scales != {1.0} else base._replace(**made)


@dataclass
class Search:
    """The search over the groups of one stage; `changes` are those that can show in it."""

    groups: Sequence[Group]
    comparison: Comparison
    changes: Sequence[Change]
    side: Side
    evaluated: int = 0
    started: int = field(default_factory=lambda: observations.COMPUTED["passes"])
    tried: dict[Sides, Score] = field(default_factory=dict)

    @property
    def fitted_fields(self) -> list[str]:
        """The numbers among the fields that can show."""
        return list(dict.fromkeys(n for change in self.changes for n in change if n in FITTED))

    def score(self, sides: Sides) -> Score:
        """Return how far the reference under these conventions agrees."""
        if sides not in self.tried:
            self.tried[sides] = len(self.groups), 0
            for number, group in enumerate(self.groups):
                self.evaluated += 1
                found = self.comparison.differences(group, sides)
                agree = sum(d <= self.comparison.allowed(group.stage) for d in found.values())
                if agree < len(found):
                    self.tried[sides] = number, agree
                    break
        return self.tried[sides]

    @property
    def work(self) -> int:
        """How much may still be computed: a stage counts 1, and each pass of a network 3 more."""
        return MOST_WORK - self.evaluated - 3 * (observations.COMPUTED["passes"] - self.started)

    def agreeing(self, several: Iterable[Sides]) -> list[Sides]:
        """Return those under which every array agrees."""
        return [sides for sides in several if self.score(sides)[0] == len(self.groups)]

    def solve(self, starts: Iterable[Sides]) -> list[Sides]:
        """Return conventions that reproduce everything, the nearest to the first start first."""
        starts = list(dict.fromkeys(starts))
        # What makes more arrays agree may lead astray: then once more, by several changes at once.
        for is_thorough in (False, True):
            level = starts
            for _ in range(MOST_CHANGES + 1):
                if solved := self.agreeing(level):
                    return sorted(solved, key=lambda sides: catalogue.cost_of(sides, starts[0]))
                if self.work <= (0 if is_thorough else MOST_WORK // 2):
                    break
                level = self._expand(level, is_thorough)
        return []

    def _expand(self, level: list[Sides], is_thorough: bool) -> list[Sides]:
        """Return what agrees further, by known values and then by fitted ones or by several."""
        better: dict[Sides, None] = {}
        stage = self.groups[0].stage
        # Numbers of a loss agree by chance, others seldom; and a pass of a network costs much.
        few = BEAM if KINDS[stage].alone else 1
        for ways in (self._neighbours, self._several if is_thorough else self._fitted):
            most = few if ways == self._several and "losses" not in stage else None
            for base in level[:2] if is_thorough else level:
                for other in itertools.islice(self._better(base, ways(base)), most):
                    better[other] = None
                    if most and self.agreeing([other]):
                        return [other]
                if better and most:
                    break
            if solved := self.agreeing(better):
                return solved
            if better and not is_thorough:
                break
        ranked = sorted(better, key=lambda sides: (self.score(sides), -catalogue.cost_of(sides)))
        return ranked[::-1][:BEAM]

    def _better(self, base: Sides, moves: Iterable[Move]) -> Iterator[Sides]:
        before = self.score(base)
        for other in itertools.chain.from_iterable(self._made(base, move) for move in moves):
            if self.score(other) > before:
                yield other
            if self.work <= 0:
                return

    def _neighbours(self, base: Sides) -> Iterator[Move]:
        """Yield one known change, then several of a loss, which cost next to nothing."""
        yield from (([change], ()) for change in self.changes)
        of_loss = [c for c in self.changes if all(part_of(name) == "loss" for name in c)]
        seen = self._effective(base, of_loss)
        for count in (2, 3):
            yield from ((several, ()) for several in itertools.combinations(seen, count))

    def _fitted(self, base: Sides) -> Iterator[Move]:
        """Yield one fitted number, of a network only where its passes are the stage."""
        is_forward = KINDS[self.groups[0].stage].track == "forward"
        names = [n for n in self.fitted_fields if is_forward or part_of(n) != "network"]
        yield from (([change], [name]) for name in names for change in needed_by(name))

    def _several(self, base: Sides) -> Iterator[Move]:
        """Yield two changes with an effect where `base` diverges, the stage's first parts first."""
        seen = self._effective(base, self.changes)
        names = [name for name in self.fitted_fields if any(name in change for change in seen)]
        cheap = [name for name in names if part_of(name) == "statistics"]  # without more passes
        costly = [name for name in names if name not in cheap]
        yield from (([change], [name]) for change in seen for name in cheap if name not in change)
        yield from (((seen[i], seen[j]), ()) for j in range(len(seen)) for i in range(j))
        yield from (([change], [name]) for change in seen for name in costly if name not in change)
        yield from (((), two) for two in itertools.combinations(names, 2))

    def _effective(self, base: Sides, changes: Iterable[Change]) -> list[Change]:
        """Return the changes that move any number of the group in which `base` diverges."""
        group = self.groups[self.score(base)[0]]
        made = ((change, with_change(base, change, self.side)) for change in changes)
        return [change for change, x in made if x and differing_arrays(group, base, x)]

    def _made(self, base: Sides, move: Move) -> Iterator[Sides]:
        """Yield `base` after a move, if it can be made: numbers fitted to arrays that differ."""
        changes, fields = move
        moved: Sides | None = base
        for change in changes:
            moved = moved and with_change(moved, change, self.side)
        if moved and not fields:
            yield moved
        elif moved and with_change(moved, dict.fromkeys(fields), self.side):
            group = self.groups[self.score(moved)[0]]
            for name in self.comparison.differing(group, moved)[:2]:
                if self.work > 0 and (fitted := self._fit(moved, fields, group, name)):
                    yield fitted

    def _fit(self, base: Sides, fields: Sequence[str], group: Group, name: str) -> Sides | None:
        """Return `base` with the roundest numbers that reproduce an array, None without any."""
        kinds = [FITTED[field] for field in fields]

        def sides_of(values: Iterable[float]) -> Sides:
            return with_change(base, dict(zip(fields, values, strict=True)), self.side) or base

        def numbers(theta: Array) -> list[float]:
            pairs = zip(kinds, theta, strict=True)
            return [float(np.exp(t) if kind.logarithmic else t) for kind, t in pairs]

        def array_at(theta: Array) -> Array | None:
            self.evaluated += 1
            return reference_arrays(group.stage, group.probe, sides_of(numbers(theta))).get(name)

        def agrees(values: list[float]) -> bool:
            found = self.comparison.differences(group, sides_of(values))
            return found.get(name, math.inf) <= self.comparison.allowed(group.stage)

        start = base.generator if self.side == "generator" else base.discriminator
        theta = np.array([kind.start(start, group.probe.spec) for kind in kinds])
        largest = np.array([kind.largest_step for kind in kinds])
        points = _gauss_newton(array_at, theta, group.arrays[name], largest)
        fitted = next(filter(agrees, map(numbers, points)), None)
        if fitted is None:
            return None
        for place, value in enumerate(fitted):
            before, after = fitted[:place], fitted[place + 1 :]
            rounder = ([*before, float(f"{value:.{n}e}"), *after] for n in range(4))
            fitted = next(filter(agrees, rounder), fitted)
        return sides_of(fitted)


def _gauss_newton(
    array_at: Callable[[Array], Array | None], theta: Array, wanted: Array, largest: Array
) -> Iterator[Array]:
    """Yield points nearer and nearer to one that reproduces an array; none where they diverge.

    A point has a number for each field, or its logarithm; `largest` are the largest steps.
    """
    sizes: list[float] = []
    for _ in range(FIT_STEPS):
        here = array_at(theta)
        if here is None or here.shape != wanted.shape or not np.isfinite(here).all():
            return
        sizes.append(float(np.linalg.norm(wanted - here)))
        if len(sizes) > 4 and sizes[-1] > 0.5 * sizes[-4]:
            return  # no solution: a right fit converges quadratically
        if len(sizes) > 1:
            yield theta
        columns = []
        for shift in np.diag(FIT_PART * np.maximum(1e-2, np.abs(theta))):
            ahead, behind = array_at(theta + shift), array_at(theta - shift)
            if ahead is None or behind is None:
                return
            columns.append(((ahead - behind) / (2.0 * shift.sum())).ravel())
        jacobian = np.stack(columns, axis=1)
        if not np.isfinite(jacobian).all() or not jacobian.any(axis=0).all():
            return  # a field that this array does not depend on
        step = np.linalg.lstsq(jacobian, (wanted - here).ravel(), rcond=None)[0]
        theta = theta + np.clip(step, -largest, largest)


def is_proven(groups: Sequence[Group], comparison: Comparison, sides: Sides) -> bool:
    """Whether conventions reproduce all of some groups."""
    return not any(comparison.differing(group, sides) for group in groups)


def explained(
    groups: Sequence[Group], comparison: Comparison, sides: Sides
) -> Iterator[tuple[Change, str, str]]:
    """Yield every change of some conventions without which numbers differ, enough for a fit.

    With it the first stage that shows it, and the network that alone has it, "" where both have or
    the other one has no use for it.
    """
    for change in deviations(*sides):
        fewer = without(sides, change)
        differing = ((group, n) for group in groups for n in comparison.differing(group, fewer))
        sizes = [(group.stage, group.arrays[name].size) for group, name in differing]
        if sum(size for _, size in sizes) >= (1 if catalogue.is_known(change) else LEAST_NUMBERS):
            having = [n for n, c in sides._asdict().items() if change.items() <= vars(c).items()]
            both = Sides(*(c.replace(**change) for c in sides))
            is_alone = len(having) == 1 and not is_proven(groups, comparison, both)
            yield change, sizes[0][0], having[0] if is_alone else ""


def without(sides: Sides, change: Change) -> Sides:
    """Return conventions of which those that have a change have it no more."""
    undone = {field: FIELDS[field] for field in change}
    return Sides(*(c.replace(**undone) if change.items() <= vars(c).items() else c for c in sides))


def consistent(groups: Sequence[Group], comparison: Comparison, sides: Sides) -> Sides:
    """Return conventions without the changes by which groups differ that agree without them."""
    for group in groups:
        if is_proven([group], comparison, START) and not is_proven([group], comparison, sides):
            fewer = (without(sides, change) for change in deviations(*sides))
            sides = next((s for s in fewer if is_proven([group], comparison, s)), START)
    return sides


def is_contradicted(group: Group, comparison: Comparison, sides: Sides, change: Change) -> bool:
    """Whether a change of some conventions shows in what differs from them in a group."""
    changed = differing_arrays(group, sides, without(sides, change))
    return bool(changed.intersection(comparison.differing(group, sides)))


def located(groups: Sequence[Group], comparison: Comparison, sides: Sides, tried: int) -> Located:
    """Return what is known of a stage that nothing explains: where it differs, and how."""
    for group in groups:
        _, first = comparison.compare(group, sides)
        if first is not None:
            hint = _suggestion(group, first.array, sides, comparison)
            place = group.stage, first.probe, first.array, first.relative
            return Located(*place, tuple(comparison.differing(group, sides)), tried, hint)
    hint = "what explains it here does not on further probes"
    return Located(groups[0].stage, tried=tried, note=hint)


def _suggestion(group: Group, name: str, sides: Sides, comparison: Comparison) -> str:
    """Return what the numbers of an array look like, beside the expected ones; "" for nothing."""
    probe, stage, of_what = group.probe, group.stage, "what is expected"
    received, expected = group.arrays[name], reference_arrays(stage, probe, sides)[name]
    if received.shape != expected.shape:
        return f"shape {received.shape}, expected {expected.shape}"
    if stage.startswith("updated"):
        v = {n: np.maximum(a, probe.arrays[n]) for n, a in probe.after.items() if n.endswith("/v")}
        largest = replace(group, probe=replace(probe, after=probe.after | v))
        if is_proven([largest], comparison, sides):
            return "AMSGrad: the largest second moment so far in place of the last one"
        received, expected = received - probe.arrays[name], expected - probe.arrays[name]
        of_what = "the move that is expected, as by a schedule of the learning rate"
    size = float(np.vdot(expected, expected))
    if received.size >= LEAST_NUMBERS and size:
        ratio = float(np.vdot(expected, received)) / size
        rest = float(np.linalg.norm(received - ratio * expected)) / size**0.5
        if rest <= comparison.allowed(stage):
            return f"{ratio:.6g} times {of_what}"
    return ""
