"""Why an implementation disagrees with the reference: stage by stage, then by its conventions."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
import time
from collections.abc import Iterable, Sequence
from typing import Any

from threadpoolctl import threadpool_limits

from shared.explain.catalogue import CANONICAL, Change, cost_of, deviations, title_of
from shared.explain.distance import BOUNDS, Comparison, Divergence
from shared.explain.initial import InitialWeights, initial_weights
from shared.explain.observations import (
    ADAM_STAGE,
    FORWARD_STAGES,
    LOSS_STAGE,
    STAGES,
    STEP_STAGES,
    Group,
)
from shared.explain.port import Observations, Port, PortError
from shared.explain.probes import Probe, make_probes
from shared.explain.search import Search
from shared.explain.steps import habits, many_steps
from shared.explain.verdict import Explanation, Stage, Trap, VerdictName
from shared.spec import Conventions, SystemSpec

# In float32 a probe that is clear of every kink for the reference may not be for a wrong port. What
# agrees so far is near enough to find its mistake, and then probes clear of ITS kinks.
NEAR_ENOUGH = 1e-3
ATTEMPTS = 3
# Seconds after which no further explanation is looked for. What the port itself takes is not
# counted: one that compiles every operation for itself needs longer than the search.
TIME_LIMIT = 100.0


def explain(
    implementation: Any, spec: SystemSpec, *, dtype: str = "float64", seed: int = 0, steps: int = 10
) -> Explanation:
    """Compare an implementation with the reference and name what differs.

    `implementation` has any of the methods of `shared.interface.Implementation`, and those of its
    optional protocols; what it lacks is not looked at. `spec` should be narrow (width 2 to 8, batch
    4). Raises ValueError for a system that has no probe in float32.
    """
    # The reference's matrices are small: more threads only wait for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        return _Explainer(implementation, spec, dtype, seed, steps).run()


class _Explainer:
    def __init__(
        self, implementation: Any, spec: SystemSpec, dtype: str, seed: int, steps: int
    ) -> None:
        self.port, self.spec, self.dtype = Port(implementation, dtype), spec, dtype
        self.seed, self.steps = seed, steps
        self.comparison = Comparison(dtype, BOUNDS[dtype])
        self.name = getattr(implementation, "name", type(implementation).__name__)
        self.started = time.monotonic()
        self.deadline: float | None = None
        self.tried = 0
        self.notes: list[str] = []
        self.initial: InitialWeights | None = None
        self.seen = Observations()

    def run(self) -> Explanation:
        clear_under: list[Conventions] = [CANONICAL] if self.dtype == "float32" else []
        for attempt in range(ATTEMPTS):
            probes = make_probes(self.spec, self.seed * ATTEMPTS + attempt, clear_under)
            self.seen = Observations()
            try:
                self.initial = self.initial or initial_weights(self.port, self.spec)
                self._observe(probes)
            except PortError as error:
                return self._failed(str(error))
            if not self.seen.groups:
                return self._failed("there was nothing to compare")
            found = self._solve(BOUNDS[self.dtype])
            if found or self.dtype == "float64":
                break
            clear_under = [CANONICAL, *self._solve(NEAR_ENOUGH)[:1]]
        return self._conclude(probes, found)

    def _observe(self, probes: Sequence[Probe]) -> None:
        for number, probe in enumerate(probes):
            stages = (*FORWARD_STAGES, *STEP_STAGES) if number else STAGES
            self.port.observe(probe, stages, self.seen)
            if number == 0:
                self.notes += habits(self.port, probe)
        self.seen.groups.sort(key=lambda group: STAGES.index(group.stage))

    # --- search -----------------------------------------------------------------------------------

    def _search(
        self, groups: Sequence[Group], bound: float, starts: Iterable[Conventions]
    ) -> list[Conventions]:
        if self.deadline is None:
            self.deadline = time.monotonic() + TIME_LIMIT
        comparison = dataclasses.replace(self.comparison, bound=bound)
        search = Search(groups, comparison, self.deadline)
        solutions = search.solve(starts)
        self.tried += len(search.tried)
        return solutions

    def _solve(self, bound: float) -> list[Conventions]:
        """Return what explains everything, the simplest first; nothing where nothing does.

        Forward passes, loss functions and the step are looked at one by one, since a port's step
        need not do what its `generate` or `loss` does; one explanation of all is preferred.
        """
        explained = [[CANONICAL]]
        for stages in (FORWARD_STAGES, (LOSS_STAGE,), (ADAM_STAGE,)):
            solutions = self._search(self.seen.of(stages), bound, [CANONICAL])
            if not solutions:
                return []
            explained.append(solutions[:4])
        starts = [*_united(explained), *itertools.chain(*explained)]
        # One step each: the groups of one probe after those of the other.
        probes = list(dict.fromkeys(group.probe for group in self.seen.groups))
        groups = sorted(self.seen.of(STEP_STAGES), key=lambda group: probes.index(group.probe))
        explained.append(self._search(groups, bound, starts))
        return sorted(dict.fromkeys(_united(explained)), key=cost_of)

    # --- verdicts ---------------------------------------------------------------------------------

    def _conclude(self, probes: Sequence[Probe], found: list[Conventions]) -> Explanation:
        bound = BOUNDS[self.dtype]
        if not found and self.dtype == "float64":
            bound = BOUNDS["float32"]
            found = self._solve(bound)
        stages, first = self._stages()
        if not found:
            if self.deadline is not None and time.monotonic() > self.deadline:
                self.notes.append(
                    f"the search was ended after {TIME_LIMIT:g} s; "
                    "a narrower system is searched faster"
                )
            return self._explanation("unexplained", stages, first)
        try:
            later, divergence = many_steps(self.port, probes[0], found[0], self.steps, bound)
        except PortError as error:
            return self._failed(str(error))
        stages.append(later)
        if divergence is not None:
            return self._explanation("unexplained", stages, first or divergence)
        traps = [self.initial.trap] if self.initial and self.initial.trap else []
        traps += [self._trap(change, probes) for change in deviations(found[0])]
        if bound != BOUNDS[self.dtype]:
            cost = (first.relative, f"{first.array} ({first.stage})") if first else (0.0, "")
            traps.append(Trap({"dtype": "float32"}, *cost))
        alternatives = tuple(
            "; ".join(map(title_of, deviations(c)))
            for c in found[1:]
            if cost_of(c) <= cost_of(found[0])
        )
        verdict: VerdictName = "known trap" if traps else "rounding"
        return self._explanation(verdict, stages, first, tuple(traps), alternatives)

    def _stages(self) -> tuple[list[Stage], Divergence | None]:
        stages = [self.initial.stage] if self.initial else []
        divergences = [self.initial.first] if self.initial else []
        for group in self.seen.groups:
            found, divergence = self.comparison.compare(group, CANONICAL)
            worst = max(found, key=lambda name: found[name], default="")
            row = group.stage, group.probe.name, found.get(worst), worst
            stages.append(Stage(*row, agrees=divergence is None))
            divergences.append(divergence)
        missing = self.seen.missing.items()
        stages += [Stage(name, "", None, "", reason) for name, reason in missing]
        return stages, next(filter(None, divergences), None)

    def _trap(self, change: Change, probes: Sequence[Probe]) -> Trap:
        wrong = CANONICAL.replace(**change)
        cost, where = 0.0, ""
        for stage, probe in itertools.product(STAGES, probes):
            group = Group(stage, probe, self.comparison.reference.arrays(stage, probe, wrong))
            for name, difference in self.comparison.differences(group, CANONICAL).items():
                if difference > cost:
                    cost, where = difference, f"{name} ({stage}, {probe.name})"
        return Trap(change, cost, where)

    def _failed(self, reason: str) -> Explanation:
        self.notes.append(reason)
        return self._explanation("unexplained", *self._stages())

    def _explanation(
        self,
        verdict: VerdictName,
        stages: list[Stage],
        first: Divergence | None,
        traps: tuple[Trap, ...] = (),
        alternatives: tuple[str, ...] = (),
    ) -> Explanation:
        notes = [*self.notes, self.initial.note if self.initial else ""]
        return Explanation(
            implementation=self.name,
            system=f"{self.spec.name}, {self.spec.loss}, width {self.spec.width}",
            dtype=self.dtype,
            verdict=verdict,
            stages=tuple(stages),
            bound=BOUNDS[self.dtype],
            first=first,
            traps=traps,
            alternatives=alternatives,
            notes=tuple(filter(None, dict.fromkeys(notes))),
            tried=self.tried,
            seconds=time.monotonic() - self.started,
            missing=self.seen.missing,
        )


def _united(explained: Sequence[Sequence[Conventions]]) -> list[Conventions]:
    """Return conventions with the changes of one of each, but for those that contradict."""
    found = []
    for parts in itertools.product(*explained):
        changes = [change for part in parts for change in deviations(part)]
        united: Change = functools.reduce(operator.or_, changes, {})
        if all(change.items() <= united.items() for change in changes):
            found.append(CANONICAL.replace(**united))
    return found
