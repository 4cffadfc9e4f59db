"""What is planted to see whether `shared.explain` is right: at random, none hiding another."""

import itertools
from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np

from shared.explain.catalogue import STAGES, part_of
from shared.explain.distance import BOUNDS, Comparison
from shared.explain.observations import Group, reference_arrays
from shared.explain.port import Port, PortError
from shared.explain.probes import PROBES, Probe, draw_probe
from shared.interface import IMPLEMENTATIONS, Array, Implementation, load_implementation
from shared.reference.comparison import relative_l2
from shared.spec import SYSTEMS, Conventions, SystemSpec
from shared.spec.systems import LOSS_NAMES, GeneratorBatch
from tests.apparatus.planted.fault import Fault
from tests.apparatus.planted.faults import FAULTS
from tests.apparatus.planted.mutate import mutated, mutated_sources
from tests.apparatus.planted.outside import OUTSIDE

SYSTEMS_OF_OUTSIDE_RUNS = (*["mlp28"] * 6, *["conv28"] * 2, "dcgan64")
MOST_SYSTEMS = 12
LEAST_SHOWN = 1e-7
PARTS = ("network", "loss", "step", "statistics", "Adam")


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


def right_runs(
    count: int, seed: int, frameworks: Sequence[str]
) -> Iterator[tuple[str, str, SystemSpec]]:
    """Yield framework, dtype and system of runs in which nothing is wrong, all at random."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        framework, dtype = rng.choice(frameworks), rng.choice(list(BOUNDS))
        yield str(framework), str(dtype), random_system(rng, tuple(SYSTEMS))


def outside_runs(count: int, seed: int) -> Iterator[tuple[Fault, str, SystemSpec, int]]:
    """Yield mistakes that no convention is, each where it shows: dtype, system, a seed."""
    rng, made = np.random.default_rng(seed), 0
    order = itertools.chain.from_iterable(rng.permutation(len(OUTSIDE)) for _ in itertools.count())
    for number, drawn in enumerate(order):
        dtype = str(rng.choice(list(BOUNDS), p=(0.96, 0.04)))
        tried = (random_system(rng, SYSTEMS_OF_OUTSIDE_RUNS) for _ in range(MOST_SYSTEMS))
        spec = next((s for s in tried if shows(OUTSIDE[drawn], s)), None)
        if spec is not None:
            yield OUTSIDE[drawn], dtype, spec, 10_000 * seed + number
            made += 1
        if made == count:
            return


def shows(fault: Fault, spec: SystemSpec) -> bool:
    """Return whether a mistake changes any number of a few steps, and none of them raises."""
    probe = draw_probe(PROBES[0], spec, 99, [])
    try:
        with mutated("pytorch", [fault]) as wrong:
            ours, theirs = (_numbers(i, probe) for i in (load_implementation("pytorch"), wrong))
    except PortError:
        return False
    return any(not relative_l2(a, theirs[n]) <= LEAST_SHOWN for n, a in ours.items())


def _numbers(implementation: Implementation, probe: Probe) -> dict[str, Array]:
    port = Port(implementation, "float64")
    state, (z, real) = port.state_of(probe), probe.one_batch
    found = {"images": port.call("generate", state, z, training=True)}
    found["scores"] = port.call("discriminate", state, real, training=True)
    port.call("gradients", state, probe.real_images, probe.latents)
    for number in range(4):
        metrics = port.call("train_step", state, probe.real_images, probe.latents)
        found |= {f"{name}, step {number}": np.asarray(a) for name, a in metrics.items()}
    return found | port.exported(probe.spec, state)


def random_system(rng: np.random.Generator, names: Sequence[str]) -> SystemSpec:
    """Return one of these systems, narrow, with sizes, loss and order of the step of its own."""
    spec = SYSTEMS[str(rng.choice(names))]
    size = 32 if spec.architecture == "dcgan64" else 28
    widths = (4, 8) if spec.architecture == "mlp28" else (1, 2)
    return spec.replace(
        image_size=size,
        width=int(rng.choice(widths)),
        latent_dim=int(rng.integers(2, 9)),
        batch_size=int(rng.integers(2, 8)),
        loss=str(rng.choice(LOSS_NAMES)),
        discriminator_steps=int(rng.choice((1, 1, 1, 2))),
        generator_batch=str(rng.choice(get_args(GeneratorBatch))),
    )


def described(spec: SystemSpec) -> str:
    """Return what a random system has of its own."""
    sizes = f"{spec.image_size} pixels, width {spec.width}, latents {spec.latent_dim}"
    step = f"batch {spec.batch_size}, {spec.discriminator_steps} of D, {spec.generator_batch}"
    return f"{spec.name}, {spec.loss}, {sizes}, {step}"
