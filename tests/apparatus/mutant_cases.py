"""What is changed in the source: the planted faults, and generic changes that a seed draws."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from shared.interface import IMPLEMENTATIONS
from shared.spec.streams import stream
from tests import ROOT
from tests.apparatus.generic import changes_of
from tests.apparatus.planted.faults import FAULTS
from tests.apparatus.planted.faults_of_runs import RUNS
from tests.apparatus.planted.mutate import mutated_sources, package_of

Kind = Literal["mathematics", "runs", "generic"]
KINDS: tuple[Kind, ...] = ("mathematics", "runs", "generic")
GROUPS = (*IMPLEMENTATIONS, "shared")
"""Whose source is changed: a framework's, or that of the reference and the systems."""
CORE = ("losses", "layers", "models", "state", "train", "checkpoint")


@dataclass(frozen=True)
class Case:
    """A change: of whose source, of what kind, its name, and the changed files by their paths.

    `place` is a generic change's file, its line's text and what is changed, wherever the line is.
    """

    group: str
    kind: Kind
    name: str
    sources: Mapping[str, str]
    place: tuple[str, str, str] | None = None

    @cached_property
    def digest(self) -> str:
        """What tells the changed source from another."""
        text = json.dumps(dict(self.sources), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def cases_of(group: str, kind: Kind, count: int, seed: int) -> list[Case]:
    """Return the cases of one kind; of `count` generic ones, drawn by `seed`, what no fault is."""
    if kind == "generic":
        planted = {case.digest for other in KINDS[:2] for case in cases_of(group, other, 0, seed)}
        return [case for case in _generic(group, count, seed) if case.digest not in planted]
    if group not in IMPLEMENTATIONS:
        return []
    plain, package = mutated_sources(group, []), package_of(group)
    cases = []
    for fault in FAULTS if kind == "mathematics" else RUNS:
        if group not in fault.absent:
            sources = mutated_sources(group, [fault])
            changed = {f"{package}/{n}": s for n, s in sources.items() if s != plain[n]}
            cases.append(Case(group, kind, fault.name, changed))
    return cases


def sample_of(cases: Sequence[Case], count: int, seed: int) -> list[Case]:
    """Return so many cases of each group, drawn at random."""
    drawn: list[Case] = []
    for group in dict.fromkeys(case.group for case in cases):
        own = [case for case in cases if case.group == group]
        order = stream(seed, f"mutants/{group}").permutation(len(own))
        drawn += [own[i] for i in sorted(order[:count])]
    return drawn


def _generic(group: str, count: int, seed: int) -> list[Case]:
    found = []
    for path in _files(group):
        source = (ROOT / path).read_text("utf-8")
        for change in changes_of(source):
            old = " ".join(source[change.start : change.end].split())
            what = f"{old} -> {' '.join(change.new.split())}"
            column = change.start - source.rfind("\n", 0, change.start)
            line = source.splitlines()[change.line - 1].strip()
            name = f"{path}:{change.line}:{column}: {what}"
            found.append((name, (path, line, what), change.applied_to(source)))
    order = stream(seed, f"generic/{group}").permutation(len(found))
    drawn = [found[i] for i in sorted(order[:count])]
    return [
        Case(group, "generic", name, {place[0]: changed}, place) for name, place, changed in drawn
    ]


def _files(group: str) -> list[str]:
    if group in IMPLEMENTATIONS:
        return [f"{package_of(group)}/{name}.py" for name in CORE]
    rooms = (Path("shared/reference"), Path("shared/spec"))
    return [str(p.relative_to(ROOT)) for room in rooms for p in sorted((ROOT / room).glob("*.py"))]
