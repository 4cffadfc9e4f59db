"""What is planted to see whether `shared.explain` is right: at random, none hiding another."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from shared.explain.catalogue import part_of
from shared.explain.distance import BOUNDS, Comparison
from shared.explain.observations import Group, reference_arrays
from shared.explain.probes import PROBES, draw_probe
from shared.explain.stages import STAGES
from shared.interface import IMPLEMENTATIONS
from shared.spec import SYSTEMS, Conventions, SystemSpec
from tests.apparatus.planted.fault import Fault
from tests.apparatus.planted.faults import FAULTS
from tests.apparatus.planted.mutate import mutated_sources
from tests.apparatus.planted.outside import OUTSIDE

PARTS = ("network", "loss", "step", "statistics", "Adam")
SYSTEMS_OF_RIGHT_RUNS = ("dcgan64", "dcgan64-lsgan", "conv28", "mlp28")


def pairs(count: int, seed: int) -> Iterator[tuple[str, tuple[Fault, Fault]]]:
    """Yield random pairs of faults and a framework; of each pair neither hides the other."""
    rng = np.random.default_rng(seed)
    possible = [
        (a, b)
        for a, b in itertools.combinations(FAULTS, 2)
        if a.spec == b.spec and not set(a.deviation) & set(b.deviation)
    ]
    order, made = rng.permutation(len(possible)), 0
    for number in order:
        framework = IMPLEMENTATIONS[rng.integers(len(IMPLEMENTATIONS))]
        pair = possible[number]
        if any(framework in fault.absent for fault in pair) or not _applies(framework, pair):
            continue
        if _hides(pair):
            continue
        yield framework, pair
        made += 1
        if made == count:
            return


def _applies(framework: str, pair: Sequence[Fault]) -> bool:
    """Return whether all can be planted: not where two change the same place."""
    places = [(edit.file, edit.old) for fault in pair for edit in fault.edits[framework]]
    if len(places) > len(set(places)):
        return False
    try:
        mutated_sources(framework, pair)
    except ValueError:
        return False
    return True


def fives(count: int, seed: int) -> Iterator[tuple[Fault, ...]]:
    """Yield random mistakes in five parts of a step in PyTorch, of which none hides another."""
    rng, made = np.random.default_rng(seed), 0
    groups = [[f for f in FAULTS if _part(f) == p and f.spec == FAULTS[0].spec] for p in PARTS]
    while made < count:
        five = tuple(group[rng.integers(len(group))] for group in groups)
        if _applies("pytorch", five) and not _hides(five):
            yield five
            made += 1


def tangles(count: int, seed: int) -> Iterator[tuple[Fault, ...]]:
    """Yield a mistake that no convention is, with one to three others of which none hides one."""
    rng, made = np.random.default_rng(seed), 0
    while made < count:
        known = [FAULTS[i] for i in rng.choice(len(FAULTS), 1 + rng.integers(3), replace=False)]
        drawn = (OUTSIDE[rng.integers(len(OUTSIDE))], *known)
        specs = {fault.spec for fault in drawn}
        if len(specs) == 1 and _applies("pytorch", drawn) and not _hides(known):
            yield drawn
            made += 1


def _part(fault: Fault) -> str:
    return part_of(next(iter(fault.deviation)))


def _hides(faults: Sequence[Fault]) -> bool:
    """Return whether several together compute what all but one of them do."""
    everything = Conventions()
    for fault in faults:
        everything = everything.replace(**fault.deviation)
    if everything.initializer != "spec":
        return False
    canonical = vars(Conventions())
    return any(
        same_numbers(
            fault.spec,
            everything.replace(**{name: canonical[name] for name in fault.deviation}),
            everything,
        )
        for fault in faults
    )


def same_numbers(spec: SystemSpec, ours: Conventions, theirs: Conventions) -> bool:
    comparison = Comparison("float64", BOUNDS["float64"])
    groups = (
        Group(stage, probe, reference_arrays(stage, probe, ours))
        for probe in (draw_probe(name, spec, 0, []) for name in PROBES)
        for stage in STAGES
    )
    return all(comparison.compare(group, theirs)[1] is None for group in groups)


def right_runs(count: int) -> Iterator[tuple[str, str, SystemSpec, int]]:
    """Yield framework, dtype, system and seed of runs in which nothing is wrong."""
    kinds = itertools.cycle(
        itertools.product(SYSTEMS_OF_RIGHT_RUNS, ("float64", "float32"), IMPLEMENTATIONS)
    )
    for seed, (system, dtype, framework) in zip(range(count), kinds, strict=False):
        yield framework, dtype, narrow(system), seed


def narrow(system: str) -> SystemSpec:
    """Return a system of the size that the command has."""
    width = 8 if system == "mlp28" else 2
    return SYSTEMS[system].replace(width=width, latent_dim=6, batch_size=4)
