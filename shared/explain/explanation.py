"""Why an implementation disagrees with the reference: stage by stage, then by its conventions."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

from threadpoolctl import threadpool_limits

from shared.explain.distance import BOUNDS, differences
from shared.explain.initial import InitialWeights, initial_weights
from shared.explain.observations import (
    FORWARD_STAGES,
    LOSS_STAGE,
    STAGES,
    STEP_STAGES,
    Group,
    ReferenceObserver,
)
from shared.explain.port import Observations, Port, PortError
from shared.explain.probes import Probe, make_probes
from shared.explain.search import Search
from shared.explain.steps import habits, many_steps
from shared.explain.traps import CANONICAL, cost_of, deviations
from shared.explain.verdict import Explanation, Place, Stage, Trap
from shared.spec import Conventions, SystemSpec

# In float32 a probe that is clear of every kink for the reference may not be for a wrong port. What
# agrees so far is near enough to find its mistake, and then probes clear of ITS kinks.
NEAR_ENOUGH = 1e-3
ATTEMPTS = 3
# Seconds after which no further explanation is looked for. What the port itself takes is not
# counted: one that compiles every operation for itself needs longer than the search.
TIME_LIMIT = 100.0
FLOAT32_INSIDE = {"dtype": "float32"}


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
        self.seed, self.steps, self.bound = seed, steps, BOUNDS[dtype]
        self.reference = ReferenceObserver()
        self.name = getattr(implementation, "name", type(implementation).__name__)
        self.started = time.monotonic()
        self.deadline: float | None = None
        self.tried = 0
        self.notes: list[str] = []
        self.initial: InitialWeights | None = None

    def run(self) -> Explanation:
        clear_under: list[Conventions] = [CANONICAL] if self.dtype == "float32" else []
        for attempt in range(ATTEMPTS):
            probes = make_probes(self.spec, self.seed * ATTEMPTS + attempt, clear_under)
            seen = Observations()
            try:
                self.initial = self.initial or initial_weights(self.port, self.spec)
                self._observe(probes, seen)
            except PortError as error:
                return self._failed(seen, str(error))
            if not seen.groups:
                return self._failed(seen, "there was nothing to compare")
            found = self._solve(seen, self.bound)
            if found is not None or self.dtype == "float64":
                break
            near = self._solve(seen, NEAR_ENOUGH)
            clear_under = [CANONICAL, *(near or [])[:1]]
        return self._conclude(seen, probes, found)

    def _observe(self, probes: Sequence[Probe], into: Observations) -> None:
        for number, probe in enumerate(probes):
            self.port.observe(probe, into)
            if number == 0:
                self.port.observe_losses(probe, into)
                self.port.observe_adam(probe, into)
                self.notes += habits(self.port, probe)
        order = list(itertools.chain(*STAGES.values()))
        into.groups.sort(key=lambda group: order.index(group.stage))

    # --- search -----------------------------------------------------------------------------------

    def _search(self, groups: Sequence[Group], bound: float) -> Search:
        if self.deadline is None:
            self.deadline = time.monotonic() + TIME_LIMIT
        return Search(groups, self.reference, dtype=self.dtype, bound=bound, deadline=self.deadline)

    def _solve(self, seen: Observations, bound: float) -> list[Conventions] | None:
        """Return what explains everything, the simplest first; None where nothing does.

        Forward passes, loss functions and the step are looked at one by one, since a port's step
        need not do what its `generate` or `loss` does; one explanation of all is preferred.
        """
        together = [CANONICAL]
        explained: list[list[Conventions]] = [together]
        for stages in (FORWARD_STAGES, (LOSS_STAGE,), STAGES["adam"]):
            search = self._search(seen.of(stages), bound)
            solutions = search.solve([CANONICAL])
            self.tried += len(search.tried)
            if not solutions:
                return None
            explained.append(solutions[:4])
        starts = [c for c in map(_united, itertools.product(*explained)) if c is not None]
        search = self._search(_by_probe(seen.of(STEP_STAGES)), bound)
        solutions = search.solve(dict.fromkeys([*starts, *itertools.chain(*explained)]))
        self.tried += len(search.tried)
        united = [c for parts in itertools.product(*explained, solutions) if (c := _united(parts))]
        return sorted(dict.fromkeys(united), key=cost_of) or None

    # --- verdicts ---------------------------------------------------------------------------------

    def _note_lack_of_time(self) -> None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            self.notes.append(
                f"the search was ended after {TIME_LIMIT:g} s; a narrower system is searched faster"
            )

    def _conclude(
        self, seen: Observations, probes: Sequence[Probe], found: list[Conventions] | None
    ) -> Explanation:
        if found is None and self.dtype == "float64":
            found = self._solve(seen, BOUNDS["float32"])
            self.bound = BOUNDS["float32"] if found else self.bound
        lower = found is not None and self.bound != BOUNDS[self.dtype]
        stages, first = self._stages(seen)
        if found is None:
            self._note_lack_of_time()
            return self._explanation(seen, "unexplained", stages, first)
        try:
            later = many_steps(self.port, probes[0], found[0], self.steps, self.bound)
        except PortError as error:
            return self._failed(seen, str(error))
        stages += later.stages
        if later.parting is not None:
            place = first or Place.of(later.parting, self.dtype)
            return self._explanation(seen, "unexplained", stages, place)
        traps = self._initial_traps()
        traps += [self._trap(change, probes) for change in deviations(found[0])]
        if lower:
            traps.append(Trap(FLOAT32_INSIDE, first.relative if first else 0.0, _where(first)))
        verdict = "known trap" if traps else "rounding"
        alternatives = tuple(_described(c) for c in found[1:] if cost_of(c) <= cost_of(found[0]))
        return self._explanation(seen, verdict, stages, first, tuple(traps), alternatives)

    def _stages(self, seen: Observations) -> tuple[list[Stage], Place | None]:
        """Return every stage with its largest difference, and the first array that parts."""
        stages: list[Stage] = []
        first: Place | None = None
        if self.initial is not None:
            stages.append(self.initial.stage)
            if self.initial.parting is not None:
                first = Place.of(self.initial.parting, self.dtype)
        for group in seen.groups:
            expected = self.reference.arrays(group.stage, group.probe, CANONICAL)
            found = differences(group, expected, self.dtype)
            worst = max(found, key=lambda name: found[name], default="")
            parting = self._search([group], BOUNDS[self.dtype]).parting(CANONICAL)
            row = (group.stage, group.probe.name, found.get(worst), worst)
            stages.append(Stage(*row, agrees=parting is None))
            if parting is not None and first is None:
                first = Place.of(parting, self.dtype)
        missing = [Stage(name, "", None, "", reason) for name, reason in seen.missing.items()]
        return stages + missing, first

    def _trap(self, change: dict[str, Any], probes: Sequence[Probe]) -> Trap:
        """Return a mistake with what it costs alone."""
        wrong = CANONICAL.replace(**change)
        cost, where = 0.0, ""
        for stage, probe in itertools.product(itertools.chain(*STAGES.values()), probes):
            group = Group(stage, probe, self.reference.arrays(stage, probe, wrong))
            expected = self.reference.arrays(stage, probe, CANONICAL)
            for name, difference in differences(group, expected, self.dtype).items():
                if difference > cost:
                    cost, where = difference, f"{name} ({stage}, {probe.name})"
        return Trap(change, cost, where)

    def _initial_traps(self) -> list[Trap]:
        initial = self.initial
        if initial is None or initial.parting is None:
            return []
        change = {"initializer": initial.initializer}
        return [Trap(change, initial.parting.relative, f"{initial.parting.name} (initial weights)")]

    def _initial_notes(self) -> list[str]:
        return [self.initial.note] if self.initial is not None and self.initial.note else []

    def _failed(self, seen: Observations, reason: str) -> Explanation:
        self.notes.append(reason)
        stages, first = self._stages(seen)
        return self._explanation(seen, "unexplained", stages, first)

    def _explanation(
        self,
        seen: Observations,
        verdict: Any,
        stages: list[Stage],
        first: Place | None,
        traps: tuple[Trap, ...] = (),
        alternatives: tuple[str, ...] = (),
    ) -> Explanation:
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
            notes=tuple(dict.fromkeys([*self.notes, *self._initial_notes()])),
            tried=self.tried,
            seconds=time.monotonic() - self.started,
            missing=seen.missing,
        )


def _by_probe(groups: list[Group]) -> list[Group]:
    """Return the groups of one probe after those of the other: one step each."""
    names = list(dict.fromkeys(group.probe.name for group in groups))
    return sorted(groups, key=lambda group: names.index(group.probe.name))


def _united(parts: Sequence[Conventions]) -> Conventions | None:
    """Return conventions with the changes of all; None where two change one field differently."""
    fields: dict[str, Any] = {}
    for part in parts:
        for change in deviations(part):
            for field, value in change.items():
                if fields.setdefault(field, value) != value:
                    return None
    return CANONICAL.replace(**fields)


def _where(place: Place | None) -> str:
    return f"{place.array} ({place.stage})" if place else ""


def _described(conventions: Conventions) -> str:
    return "; ".join(Trap(change, 0.0, "").title for change in deviations(conventions))
