"""Why an implementation disagrees with the reference: stage by stage, then by its conventions."""

from __future__ import annotations

import functools
import itertools
import operator
import time
from collections.abc import Iterable, Sequence
from typing import Any

from threadpoolctl import threadpool_limits

from shared.explain.behaviour import habits, initial_weights, many_steps
from shared.explain.catalogue import CANONICAL, Change, cost_of, deviations, title_of
from shared.explain.distance import BOUNDS, Comparison, Divergence
from shared.explain.observations import (
    ADAM_STAGE,
    FORWARD_STAGES,
    INITIAL_STAGE,
    LOSS_STAGE,
    STAGES,
    STEP_STAGES,
    Group,
    reference_arrays,
)
from shared.explain.port import Observations, Port, PortError
from shared.explain.probes import Probe, make_probes
from shared.explain.report import Explanation, Stage, Trap, VerdictName
from shared.explain.search import Search
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

    `implementation` has any of the methods of `shared.interface.Implementation`, and those of
    `OptionalMethods`; what it lacks is not looked at. `spec` should be narrow (width 2 to 8, batch
    4). Raises ValueError for a system that has no probe in float32.
    """
    # The reference's matrices are small: more threads only wait for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        return _Explainer(implementation, spec, dtype).run(seed, steps)


class _Explainer:
    def __init__(self, implementation: Any, spec: SystemSpec, dtype: str) -> None:
        self.port, self.spec, self.dtype = Port(implementation, dtype), spec, dtype
        self.name = getattr(implementation, "name", type(implementation).__name__)
        self.deadline: float | None = None
        self.tried = 0
        self.notes: list[str] = []
        self.probes: Sequence[Probe] = ()
        self.seen = Observations()

    def run(self, seed: int, steps: int) -> Explanation:
        started = time.monotonic()
        verdict: VerdictName = "unexplained"
        later: list[tuple[Stage, Divergence | None]] = []
        traps, alternatives = [], []
        try:
            found, bound = self._conventions(seed)
            if found:
                later = [many_steps(self.port, self.probes[0], found[0], steps, bound)]
            if found and later[0][1] is None:
                traps = [self._trap(change) for change in deviations(found[0])]
                if bound != BOUNDS[self.dtype]:
                    traps.append(Trap({"dtype": "float32"}, *self._first_difference()))
                alternatives = [c for c in found[1:] if cost_of(c) <= cost_of(found[0])]
                verdict = "known trap" if traps else "rounding"
        except PortError as error:
            self.notes.append(str(error))
        shown = [*self._stages(), *later]
        return Explanation(
            implementation=self.name,
            system=f"{self.spec.name}, {self.spec.loss}, width {self.spec.width}",
            dtype=self.dtype,
            verdict=verdict,
            stages=tuple(stage for stage, _ in shown),
            bound=BOUNDS[self.dtype],
            first=next((d for _, d in shown if d is not None), None),
            traps=tuple(traps),
            alternatives=tuple("; ".join(map(title_of, deviations(c))) for c in alternatives),
            notes=tuple(dict.fromkeys([*self.seen.notes, *self.notes])),
            tried=self.tried,
            seconds=time.monotonic() - started,
            missing=self.seen.missing,
        )

    def _conventions(self, seed: int) -> tuple[list[Conventions], float]:
        """Return what explains everything that is seen, and the bound under which it does."""
        bound = BOUNDS[self.dtype]
        clear_under: list[Conventions] = [CANONICAL] if self.dtype == "float32" else []
        for attempt in range(ATTEMPTS):
            self.probes = make_probes(self.spec, seed * ATTEMPTS + attempt, clear_under)
            self._observe()
            if found := self._solve(bound):
                return found, bound
            if self.dtype == "float64":
                bound = BOUNDS["float32"]
                found = self._solve(bound)
                break
            clear_under = [CANONICAL, *self._solve(NEAR_ENOUGH)[:1]]
        if not found and self.deadline is not None and time.monotonic() > self.deadline:
            self.notes.append(
                f"the search was ended after {TIME_LIMIT:g} s; a narrower system is searched faster"
            )
        return found, bound

    def _observe(self) -> None:
        self.seen = seen = Observations()
        initial_weights(self.port, self.spec, seen)
        for number, probe in enumerate(self.probes):
            stages = (*FORWARD_STAGES, *STEP_STAGES) if number else STAGES[1:]
            self.port.observe(probe, stages, seen)
            if number == 0:
                seen.notes += habits(self.port, probe)
        seen.groups.sort(key=lambda group: STAGES.index(group.stage))
        if not seen.groups:
            raise PortError("there was nothing to compare")

    def _search(
        self, stages: Sequence[str], bound: float, starts: Iterable[Conventions]
    ) -> list[Conventions]:
        if self.deadline is None:
            self.deadline = time.monotonic() + TIME_LIMIT
        groups = [group for group in self.seen.groups if group.stage in stages]
        if stages == STEP_STAGES:  # one step each: those of one probe after those of the other
            groups.sort(key=lambda group: self.probes.index(group.probe))
        search = Search(groups, Comparison(self.dtype, bound), self.deadline)
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
            solutions = self._search(stages, bound, [CANONICAL])
            if not solutions:
                return []
            explained.append(solutions[:4])
        starts = [*_united(explained), *itertools.chain(*explained)]
        explained.append(self._search(STEP_STAGES, bound, starts))
        explained.append([CANONICAL.replace(initializer=self.seen.initializer)])
        return sorted(dict.fromkeys(_united(explained)), key=cost_of)

    def _stages(self) -> list[tuple[Stage, Divergence | None]]:
        """Return every stage, with its first array that differs."""
        comparison, stages = Comparison(self.dtype, BOUNDS[self.dtype]), []
        for group in self.seen.groups:
            found, divergence = comparison.compare(group, CANONICAL)
            worst = max(found, key=lambda name: found[name], default="")
            row = group.stage, group.probe.name, found.get(worst), worst
            stages.append((Stage(*row, agrees=divergence is None), divergence))
        missing = self.seen.missing.items()
        return stages + [(Stage(name, reason=reason), None) for name, reason in missing]

    def _trap(self, change: Change) -> Trap:
        """Return a trap with the largest difference that it makes alone in any stage."""
        comparison = Comparison(self.dtype, BOUNDS[self.dtype])
        wrong = CANONICAL.replace(**change)
        cost, where = 0.0, ""
        for stage, probe in itertools.product(STAGES, self.probes):
            group = Group(stage, probe, reference_arrays(stage, probe, wrong))
            for name, difference in comparison.differences(group, CANONICAL).items():
                if difference > cost:
                    place = stage if stage == INITIAL_STAGE else f"{stage}, {probe.name}"
                    cost, where = difference, f"{name} ({place})"
        return Trap(change, cost, where)

    def _first_difference(self) -> tuple[float, str]:
        first = next((d for _, d in self._stages() if d is not None), None)
        return (first.relative, f"{first.array} ({first.stage})") if first else (0.0, "")


def _united(explained: Sequence[Sequence[Conventions]]) -> list[Conventions]:
    """Return conventions with the changes of one of each, but for those that contradict."""
    found = []
    for parts in itertools.product(*explained):
        changes = [change for part in parts for change in deviations(part)]
        united: Change = functools.reduce(operator.or_, changes, {})
        if all(change.items() <= united.items() for change in changes):
            found.append(CANONICAL.replace(**united))
    return found
