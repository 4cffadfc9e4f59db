"""Why an implementation disagrees with the reference: stage by stage, then by its conventions."""

import functools
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from shared.explain import behaviour, catalogue, observations
from shared.explain.catalogue import CANONICAL, FIELDS, KINDS, PARTS, STEP_STAGES, deviations
from shared.explain.distance import BOUNDS, Comparison
from shared.explain.observations import ALONE, START, Group, Sides, reference_arrays
from shared.explain.port import Port, PortError
from shared.explain.probes import PROBES, Probe, draw_probe
from shared.explain.report import Explanation, Located, Stage, Trap
from shared.explain.search import Search, consistent, explained, is_contradicted, is_proven, located
from shared.spec import NETWORKS, NetworkName, SystemSpec

# In float32 a probe that is clear of every kink for the reference may not be for a wrong port. What
# agrees so far is near enough to find its mistake, and then probes clear of ITS kinks.
NEAR_ENOUGH = 1e-3
ATTEMPTS = 3
CLIPPING = "gradient_clipping", "gradient_clip"

Report = Callable[[Sequence[Stage], float], None]
"""Takes the rows of a stage, and the seconds that it took."""


def explain(
    implementation: Any,
    spec: SystemSpec,
    *,
    dtype: str = "float64",
    seed: int = 0,
    steps: int = 10,
    report: Report = lambda rows, seconds: None,
) -> Explanation:
    """Compare an implementation with the reference and name what differs.

    `implementation` has any of the methods of `shared.interface.Implementation`; what it lacks is
    not looked at. `spec` should be narrow (width 2 to 8, batch 4). `report` receives the rows of
    each stage as it ends. Raises ValueError for a system that has no probe in float32.
    """
    # The reference's matrices are small: more threads only wait for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        return _Explainer(implementation, spec, dtype, report).run(seed, steps)


class _Explainer:
    def __init__(self, implementation: Any, spec: SystemSpec, dtype: str, report: Report) -> None:
        self.port, self.spec, self.dtype = Port(implementation, dtype), spec, dtype
        self.report, self.clock = report, 0.0
        # By the dtype that was asked for, and by what is known of the implementation.
        self.own = self.comparison = Comparison(dtype, BOUNDS[dtype])
        system = f"{spec.name}, {spec.loss}, width {spec.width}"
        self.result = Explanation(self.port.name, system, dtype, [], self.own.bound)
        self.probes: Sequence[Probe] = ()
        self.plain: Sequence[Probe] = ()  # without what the implementation made of them
        self.groups: list[Group] = []
        self.initializer: str = CANONICAL.initializer
        self.unlikely: list[Located] = []  # of the initial weights
        self.found = {track: [START] for track in catalogue.TRACKS}
        self.unnamed: dict[str, int] = {}  # stage → how many sets of conventions do not explain it
        self.random: set[str] = set()  # stages whose numbers differ from call to call
        self.unjudged: dict[str, str] = {}  # stage → why it cannot be judged
        self.ended: dict[str, str] = {}  # stage → that its search was
        self.searched: dict[str, Sides] = {}  # from where it was searched for each unnamed stage

    def run(self, seed: int, steps: int) -> Explanation:
        result, started = self.result, time.monotonic()
        try:
            self._solve_all(seed)
            self._prove(seed)
            result.traps, result.located = self._traps(), self.unlikely
            for stage, tried in self.unnamed.items():
                best = self.found[KINDS[stage].track][0]
                place = located(self._groups(stage), self.comparison, best, tried)
                note = place.note if tried else "what is reported; what is learnt from agrees"
                note = "it is another at each call" if stage in self.random else note
                result.located.append(replace(place, note=note))
            result.located += self._steps_in_a_row(steps, result.traps)
        except PortError as raised:
            result.error = str(raised)
        findings = *result.findings, *self.ended.values(), result.error
        result.findings = [*dict.fromkeys(filter(None, findings))]
        result.missing |= self.unjudged
        result.seconds = time.monotonic() - started
        return result

    # --- what is seen ---------------------------------------------------------------------------

    def _solve_all(self, seed: int) -> None:
        clear_under, before = [CANONICAL] if self.dtype == "float32" else [], set[str]()
        for attempt in range(ATTEMPTS):
            drawn = self.spec, seed * ATTEMPTS + attempt, clear_under
            self.probes = [draw_probe(name, *drawn) for name in PROBES]
            self._observe()
            if self.comparison.bound == BOUNDS["float64"] and self._is_float32():
                self.comparison = Comparison(self.dtype, BOUNDS["float32"])
                clear_under = [CANONICAL]
                continue
            self._solve_tracks()
            is_last = attempt == ATTEMPTS - 1 or self.unnamed.keys() in (set(), before)
            if self.dtype == "float64" or is_last:
                break  # what stays unnamed on other probes is no matter of kinks
            before = set(self.unnamed)
            self.comparison = Comparison(self.dtype, NEAR_ENOUGH)
            self._solve_tracks()
            clear_under = [CANONICAL, self.found["step"][0].discriminator]
            self.comparison = self.own

    def _observe(self) -> None:
        result, self.groups, self.clock = self.result, [], time.monotonic()
        result.stages, result.first, result.missing, result.findings = [], None, {}, []
        shown, self.initializer, self.unlikely = behaviour.initial_weights(self.port, self.spec)
        self._end_stage(catalogue.INITIAL_STAGE, [shown])
        for stage in KINDS:
            if stage == STEP_STAGES[0]:
                self.probes = [self.port.with_step(probe) for probe in self.probes]
            probes = self.probes[:1] if stage in ALONE else self.probes
            self._end_stage(stage, [self.port.observe(probe, stage) for probe in probes])
        result.findings = [*behaviour.habits(self.port, self.probes[0])]
        if any(behaviour.TWICE in text for text in result.findings):
            self.random = behaviour.random_stages(self.port, self.probes[0], self.groups)
        if not self.groups:
            raise PortError("there was nothing to compare")

    def _end_stage(self, stage: str, shown: Sequence[Group | str]) -> None:
        """Compare what an implementation has shown of a stage: groups, or why there are none."""
        rows = []
        for group in (each for each in shown if isinstance(each, Group)):
            self.groups.append(group)
            found, first = self.own.compare(group, START)
            worst = max(found, key=lambda name: found[name], default="")
            place = stage, group.probe.name, found.get(worst), worst
            rows.append(Stage(*place, agrees=first is None))
            self.result.first = self.result.first or first
        if reasons := [each for each in shown if isinstance(each, str) and each]:
            self.result.missing[stage] = reasons[0]
            rows = rows or [Stage(stage, reason=reasons[0])]
        self._add(rows)

    def _add(self, rows: list[Stage]) -> None:
        now = time.monotonic()
        self.report(rows, now - self.clock)
        self.result.stages += rows
        self.clock = now

    def _groups(self, stage: str) -> list[Group]:
        return [group for group in self.groups if group.stage == stage]

    def _is_float32(self) -> bool:
        forward = [name for name, kind in KINDS.items() if kind.track == "forward"]
        differing = (r.name for r in self.result.stages if r.name in forward and not r.agrees)
        return any(behaviour.computes_in_float32(self.port, self.probes[0], n) for n in differing)

    def _has_rounded_losses(self, stage: str) -> bool:
        """Whether a stage is of losses, or comes behind them, and every loss is a float32 number.

        A loss of Keras has the dtype that was the default when it was made, and casts to it.
        """
        is_behind = stage.startswith(("loss", "gradients", "Adam's first"))
        is_behind = is_behind or (stage in STEP_STAGES and self._is_late(stage))
        if not is_behind or self.comparison.bound != BOUNDS["float64"]:
            return False
        shown = [g for s in KINDS if s.startswith("losses") for g in self._groups(s)]
        shown = self._groups(stage) if stage in ALONE else shown
        losses = [g.arrays[n] for g in shown for n in g.arrays if n != "discriminator_loss"]
        return bool(losses) and all(np.array_equal(a, np.float32(a)) for a in losses)

    # --- what explains it -----------------------------------------------------------------------

    def _solve_tracks(self) -> None:
        self.found = {track: [START] for track in catalogue.TRACKS}
        self.unnamed, self.unjudged, self.ended, self.searched = {}, {}, {}, {}
        for stage in (stage for stage in KINDS if stage not in STEP_STAGES):
            self._solve(stage)
        self.port.unknown = {catalogue.network_of(s) for s in self.unnamed if s not in ALONE}
        observations.forget_steps()
        self.found["step"] = united = self._united()
        if self.spec.discriminator_steps == 1 and self._updates("discriminator") == {2.0}:
            ways = catalogue.changes(self.spec, ["updates"])
            ways = [c for c in ways if "discriminator_updates" in c and "never" not in c.values()]
            twice = (Sides(*(c.replace(**change) for c in united[0])) for change in ways)
            self.found["step"] = [*twice, *united]
        # What is no update of one known gradient needs the gradients explained first.
        late = [s for s in STEP_STAGES if self._is_late(s) and s.startswith(("Adam", "updated"))]
        late += [s for s in STEP_STAGES if s.startswith("BN") and any(map(self._is_late, NETWORKS))]
        for stage in sorted(STEP_STAGES, key=late.__contains__):
            self._solve(stage)
        for stage in [s for s in STEP_STAGES if self.unnamed.get(s) or s in self.unjudged]:
            if self.searched.get(stage) != self.found["step"][0]:
                self._solve(stage)  # which what was found since may explain

    def _updates(self, network: NetworkName) -> set[float]:
        """Return by how much the counter of a network's updates moved in the steps."""
        name = f"{network}_optimizer/step"
        return {float(p.after[name] - p.arrays[name]) for p in self.probes if name in p.after}

    def _is_late(self, stage: str) -> bool:
        is_chained = observations.is_chained(self.spec, CANONICAL, stage)
        return is_chained or not self._updates(catalogue.network_of(stage)) <= {1.0}

    def _united(self) -> list[Sides]:
        """Return conventions with the changes of one of each track, then each track's alone."""
        tracks = [sides[:4] for track, sides in self.found.items() if track != "step"]
        united = [Sides(*map(_joined, zip(*p, strict=True))) for p in itertools.product(*tracks)]
        return list(dict.fromkeys([*united, *itertools.chain(*tracks), START]))

    def _solve(self, stage: str) -> None:
        """Explain a stage by what is found already, or by that and a change; or note that none."""
        kind, groups = KINDS[stage], self._groups(stage)
        for earlier in (self.unnamed, self.unjudged, self.ended):
            earlier.pop(stage, None)
        if not groups:
            return
        starts, network = self.found[kind.track], catalogue.network_of(stage)
        of_gradients = KINDS[f"gradients of the {network}"]
        # What follows from several updates needs their gradients, which go through both networks.
        is_late = stage in STEP_STAGES and self._is_late(stage)
        needs = (*kind.needs, *of_gradients.needs) if is_late else kind.needs
        if unknown := [name for name in needs if name in self.unnamed]:
            self.unjudged[stage] = f"not judged: {unknown[0]} are not explained"
            return
        parts = kind.parts if kind.alone or not is_late else (*kind.parts, "Adam")
        if observations.is_of_gradients(self.spec, stage):
            parts = *parts, *of_gradients.parts
        possible = catalogue.changes(self.spec, parts)
        search = Search(groups, self.comparison, possible, network if kind.alone else "both")
        found = search.agreeing(starts)
        if not found and self._has_rounded_losses(stage):
            rounded = self.comparison.rounded | {stage}
            search.comparison = replace(self.comparison, rounded=rounded)
            search.tried.clear()
            found = search.agreeing(starts)
        if not found and kind.follows:  # what is reported need not be what is learnt from
            plain, reported = {n: FIELDS[n] for n in PARTS["loss"]}, self._groups(kind.follows[0])
            bare = Sides(*(c.replace(**plain) for c in starts[0]))
            if search.agreeing([bare]) and not is_proven(reported, self.comparison, bare):
                found, self.unnamed[kind.follows[0]] = [bare], 0
        if not found and (unknown := [name for name in kind.follows if name in self.unnamed]):
            self.unjudged[stage] = f"follows from {unknown[0]}"
            return
        if not found and stage in self.random:  # no conventions explain what is drawn anew
            self.unnamed[stage] = 0
            return
        found = found or search.solve(starts[:4])
        sets = len(search.tried)
        self.result.tried += sets
        if not found:
            self.unnamed[stage], self.searched[stage] = sets, starts[0]
            if search.work <= 0:
                text = f"the search was ended after {sets} sets of conventions"
                self.ended[stage] = f"{stage}: {text}"
            return
        self.comparison = search.comparison
        if kind.alone and (network == NETWORKS[1] or self._is_late(NETWORKS[1])):
            found += [Sides(_joined(s), _joined(s[::-1])) for s in found]  # likely to be alike
        if "decay" in kind.parts:  # which each optimizer has for itself
            other, undone = NETWORKS[network == NETWORKS[0]], {n: FIELDS[n] for n in PARTS["decay"]}
            found += [s._replace(**{other: getattr(s, other).replace(**undone)}) for s in found]
        self.found[kind.track] = list(dict.fromkeys(found))

    # --- what proves it -------------------------------------------------------------------------

    def _judged(self, track: str, groups: Sequence[Group]) -> list[Group]:
        judged = KINDS.keys() - self.unnamed.keys() - self.unjudged.keys()
        return [g for g in groups if g.stage in judged and KINDS[g.stage].track == track]

    def _prove(self, seed: int) -> None:
        """Keep what reproduces a probe that the search has not seen; the rest is unnamed."""
        if all(found[0] == START for found in self.found.values()):
            return
        best = [CANONICAL, *(found[0].discriminator for found in self.found.values())]
        clear_under = [] if self.comparison.bound == BOUNDS["float64"] else best
        given = self.port, self.spec, seed, clear_under
        held = [g for score in behaviour.LOSING for g in behaviour.held_out(*given, score)]
        for track, found in self.found.items():
            groups = self._judged(track, held)
            proven = [sides for sides in found if is_proven(groups, self.comparison, sides)]
            self.found[track] = proven or found
            if not proven:
                wrong = (g for g in groups if not is_proven([g], self.comparison, found[0]))
                self.unnamed |= {group.stage: len(found) for group in wrong}
            self._keep_what_is_consistent(track)

    def _keep_what_is_consistent(self, track: str) -> None:
        own = [g for g in self.groups if g.stage in KINDS and KINDS[g.stage].track == track]
        first = self.found[track][0]
        if (best := consistent(own, self.comparison, first)) == first:
            return
        self.found[track] = [best]
        for group in own:
            self.unnamed.pop(group.stage, None)
        wrong = (g for g in own if not is_proven([g], self.comparison, best))
        self.unnamed |= {g.stage: self.result.tried for g in wrong if g.stage not in self.unjudged}

    def _steps_in_a_row(self, steps: int, traps: list[Trap]) -> list[Located]:
        """Compare some steps, which nothing has been looked for in; return where they differ.

        Of the traps, those of a step that this contradicts are taken away.
        """
        self.clock, best = time.monotonic(), self.found["step"][0]
        judged = list(dict.fromkeys(g.stage for g in self._judged("step", self.groups)))
        given = self.probes[0], best, judged, steps, self.comparison
        row, group = behaviour.many_steps(self.port, *given)
        self._add([row])
        if group is None:
            return []
        self.result.first = self.result.first or self.own.compare(group, best)[1]
        places = [replace(located([group], self.comparison, best, 0), stage=row.name)]
        note = f"what explains it here does not in {steps} steps in a row"
        for trap in [t for t in traps if t.stage in STEP_STAGES]:
            if is_contradicted(group, self.comparison, best, trap.fields):
                traps.remove(trap)
                places.append(Located(trap.stage, note=note))
        return places

    # --- what is reported -----------------------------------------------------------------------

    def _traps(self) -> list[Trap]:
        """Return the mistakes that are named: what explains nothing, or little, is not."""
        named: dict[str, Trap] = {}
        title_of = functools.partial(catalogue.title_of, spec=self.spec)
        # Made once: what the reference computes is kept by probe.
        self.plain = [probe.as_drawn() for probe in self.probes]
        if self.initializer != "spec":
            change = {"initializer": self.initializer}
            named["initializer"] = self._trap(change, catalogue.INITIAL_STAGE, {})
        left: list[float] = []
        for track, found in self.found.items():
            groups = self._judged(track, self.groups)
            rounded = (g for g in groups if g.stage in (self.comparison.rounded or KINDS))
            left += (max(self.own.differences(g, found[0]).values()) for g in rounded)
            common, most = set(map(title_of, deviations(*found[0]))), catalogue.cost_of(found[0])
            rivals = [deviations(*sides) for sides in found[1:] if catalogue.cost_of(sides) <= most]
            for change, stage, network in explained(groups, self.comparison, found[0]):
                has = next(vars(c) for c in found[0] if change.items() <= vars(c).items())
                trap = self._trap(change, stage, has, network)
                # One network's own is also a value of some fields: the same, in other words.
                others = [] if network else [o for o in rivals if change not in o]
                # Fitted twice, a number differs by rounding; its words do not.
                own = ("; ".join(x for x in map(title_of, o) if x not in common) for o in others)
                title = "; or ".join(dict.fromkeys([trap.title, *filter(None, own)]))
                named.setdefault(trap.title, replace(trap, title=title))
        first = self.result.first
        if self.comparison != self.own and first:
            place, part = f"{first.array} ({first.stage})", ""
            if self.comparison.bound == self.own.bound:
                place, part = ", ".join(sorted(self.comparison.rounded)), "its losses "
            title = f"it computes {part}in float32"
            change, cost = {"dtype": "float32"}, max(left, default=0.0)
            named["dtype"] = Trap(title, first.stage, change, cost, place)
        whole = [trap.fields.items() for trap in named.values()]
        return [t for t in named.values() if not any(t.fields.items() < other for other in whole)]

    def _trap(
        self, change: catalogue.Change, found_in: str, has: dict[str, Any], network: str = ""
    ) -> Trap:
        """Return a trap with the largest difference that it makes alone in any stage."""
        # Of clipping neither field does anything without the other.
        beside = {n: has[n] for n in CLIPPING if not change.keys().isdisjoint(CLIPPING)}
        wrong = CANONICAL.replace(**beside | change)
        cost, where = 0.0, ""
        for stage, probe in itertools.product(catalogue.STAGES, self.plain):
            group = Group(stage, probe, reference_arrays(stage, probe, wrong))
            for name, difference in self.own.differences(group, CANONICAL).items():
                if difference > cost and not name.endswith("/step"):
                    place = stage if stage == catalogue.INITIAL_STAGE else f"{stage}, {probe.name}"
                    cost, where = difference, f"{name} ({place})"
        alone = f", in the {network} alone" if network else ""
        title = catalogue.title_of(change, self.spec) + alone
        return Trap(title, found_in, change, cost, where, network)


def _joined(several: Sequence[Any]) -> Any:
    """Return conventions with the changes of several; the first's where they contradict."""
    changed = [change for one in reversed(several) for change in deviations(one)]
    return CANONICAL.replace(**{field: v for change in changed for field, v in change.items()})
