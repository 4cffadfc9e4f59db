"""How often `shared.explain` is right: `python -m tests.apparatus.explain_accuracy --help`.

Faults are planted in the real source of each framework (`tests.apparatus.planted`); a verdict is
right where it names exactly the fields of `Conventions`, with their values, that the fault changes.
"""

import argparse
import gc
import importlib
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.explain import Explanation, explain
from shared.explain.catalogue import part_of
from shared.explain.distance import BOUNDS, Comparison
from shared.explain.observations import Group, reference_arrays
from shared.explain.probes import make_probes
from shared.explain.stages import STAGES
from shared.interface import IMPLEMENTATIONS, load_implementation
from shared.spec import SYSTEMS, Conventions, SystemSpec
from tests.apparatus.planted.fault import Fault
from tests.apparatus.planted.faults import FAULTS
from tests.apparatus.planted.mutate import mutated
from tests.apparatus.planted.outside import OUTSIDE

PARTS = ("network", "loss", "step", "statistics", "Adam")
SYSTEMS_OF_RIGHT_RUNS = ("dcgan64", "dcgan64-lsgan", "conv28", "mlp28")


@dataclass(frozen=True)
class Outcome:
    """What was planted in which framework, and what was named."""

    framework: str
    dtype: str
    planted: tuple[str, ...]
    verdict: str
    named: str
    right: bool
    seconds: float


def same_fields(explanation: Explanation, wanted: dict[str, Any]) -> bool:
    """Return whether an explanation names exactly these fields with these values."""
    found = explanation.fields
    if explanation.verdict != "known trap" or set(found) != set(wanted):
        return False
    return all(_same_value(found[field], value) for field, value in wanted.items())


def _same_value(found: Any, wanted: Any) -> bool:
    if isinstance(found, float) and isinstance(wanted, float | int):
        return math.isclose(found, wanted, rel_tol=1e-3, abs_tol=1e-9)
    return found == wanted


def explain_faults(
    framework: str, faults: Sequence[Fault], dtype: str, *, compiled: bool = False
) -> Outcome:
    """Plant faults in a framework and return what is named; `compiled` is of JAX, as `mutated`."""
    started = time.monotonic()
    wanted = {field: value for fault in faults for field, value in fault.deviation.items()}
    planted = mutated(framework, faults, compiled=compiled)
    with planted as implementation, uncompiled(framework):
        explanation = explain(implementation, spec_of(faults), dtype=dtype, steps=2)
    gc.collect()
    return _outcome(
        framework, faults, explanation, same_fields(explanation, wanted), dtype, started
    )


@contextmanager
def uncompiled(framework: str) -> Iterator[None]:
    """Run TensorFlow operation by operation, as `mutated` runs JAX: a trace takes far longer.

    Runs without a fault are compiled.
    """
    if framework != "tf":
        yield
        return
    tensorflow = importlib.import_module("tensorflow")
    tensorflow.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tensorflow.config.run_functions_eagerly(False)


def _outcome(
    framework: str,
    faults: Sequence[Fault],
    explanation: Explanation,
    right: bool,
    dtype: str,
    started: float,
) -> Outcome:
    return Outcome(
        framework,
        dtype,
        tuple(fault.name for fault in faults),
        explanation.verdict,
        "; ".join(trap.title for trap in explanation.traps),
        right,
        time.monotonic() - started,
    )


def spec_of(faults: Sequence[Fault]) -> SystemSpec:
    """Return the system in which all these faults show."""
    return faults[0].spec


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
    """Return whether all can be planted: not where they change the same line."""
    from tests.apparatus.planted.mutate import mutated_sources

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
        _same_numbers(
            fault.spec,
            everything.replace(**{name: canonical[name] for name in fault.deviation}),
            everything,
        )
        for fault in faults
    )


def _same_numbers(spec: SystemSpec, ours: Conventions, theirs: Conventions) -> bool:
    comparison = Comparison("float64", BOUNDS["float64"])
    groups = (
        Group(stage, probe, reference_arrays(stage, probe, ours))
        for probe in make_probes(spec, 0, [])
        for stage in STAGES
    )
    return all(comparison.compare(group, theirs)[1] is None for group in groups)


def right_runs(count: int) -> Iterator[tuple[str, str, SystemSpec, int]]:
    """Yield framework, dtype, system and seed of runs in which nothing is wrong."""
    kinds = itertools.cycle(
        itertools.product(SYSTEMS_OF_RIGHT_RUNS, ("float64", "float32"), IMPLEMENTATIONS)
    )
    for seed, (system, dtype, framework) in zip(range(count), kinds, strict=False):
        width = 8 if system == "mlp28" else 2
        yield (
            framework,
            dtype,
            SYSTEMS[system].replace(width=width, latent_dim=6, batch_size=4),
            seed,
        )


def _report(outcome: Outcome) -> None:
    mark = "right" if outcome.right else "WRONG"
    found = outcome.named or outcome.verdict
    planted = " + ".join(outcome.planted) or "nothing"
    print(
        f"{mark} {outcome.framework:<8}{outcome.dtype} {planted}: {found} "
        f"({outcome.seconds:.0f} s)",
        flush=True,
    )


def _singles(options: argparse.Namespace) -> list[Outcome]:
    outcomes = []
    for fault in FAULTS:
        if options.only and fault.name not in options.only:
            continue
        for framework in options.framework:
            if framework not in fault.absent:
                outcomes.append(explain_faults(framework, [fault], options.dtype))
                _report(outcomes[-1])
    return outcomes


def _pairs(options: argparse.Namespace) -> list[Outcome]:
    outcomes = []
    for framework, pair in pairs(options.pairs, options.seed):
        if framework in options.framework:
            outcomes.append(explain_faults(framework, pair, options.dtype))
            _report(outcomes[-1])
    return outcomes


def _fives(options: argparse.Namespace) -> list[Outcome]:
    outcomes = []
    for five in fives(options.fives, options.seed):
        outcomes.append(explain_faults("pytorch", five, options.dtype))
        _report(outcomes[-1])
    return outcomes


def _outside(options: argparse.Namespace) -> list[Outcome]:
    """Plant mistakes that no convention is: right is to locate them and to name nothing."""
    outcomes = []
    for fault in OUTSIDE:
        started = time.monotonic()
        with mutated("pytorch", [fault]) as implementation:
            found = explain(implementation, fault.spec, dtype=options.dtype, steps=2)
        right = bool(found.located) and not found.traps
        outcomes.append(_outcome("pytorch", [fault], found, right, options.dtype, started))
        _report(outcomes[-1])
    return outcomes


def _right(options: argparse.Namespace) -> list[Outcome]:
    outcomes = []
    for framework, dtype, spec, seed in right_runs(options.right):
        if framework not in options.framework:
            continue
        started = time.monotonic()
        explanation = explain(load_implementation(framework), spec, dtype=dtype, seed=seed + 1)
        accused = explanation.verdict != "rounding"
        outcomes.append(_outcome(framework, [], explanation, not accused, dtype, started))
        print(f"{spec.name}, seed {seed}: ", end="")
        _report(outcomes[-1])
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the single faults as a table in Markdown: a line each, a column for each framework."""
    columns = [name for name in IMPLEMENTATIONS if name in {o.framework for o in outcomes}]
    cells = {(o.planted[0], o.framework): o for o in outcomes}
    lines = [
        f"| fault | {' | '.join(columns)} | named as |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name in dict.fromkeys(o.planted[0] for o in outcomes):
        row = [cells.get((name, framework)) for framework in columns]
        marks = ["-" if o is None else "named" if o.right else f"**{o.verdict}**" for o in row]
        named = dict.fromkeys(o.named for o in row if o is not None)
        lines.append(f"| {name} | {' | '.join(marks)} | {' / '.join(named)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 where every verdict is right."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.apparatus.explain_accuracy", description=__doc__
    )
    add = parser.add_argument
    add("--framework", nargs="+", choices=IMPLEMENTATIONS, default=list(IMPLEMENTATIONS))
    add("--singles", action="store_true", help="every planted fault in every framework")
    add("--only", nargs="+", default=[], help="of the single faults, these")
    add("--pairs", type=int, default=0, metavar="N", help="so many random pairs of faults")
    add("--fives", type=int, default=0, metavar="N", help="so many times five faults, PyTorch")
    add("--outside", action="store_true", help="mistakes that no convention is, PyTorch")
    add("--right", type=int, default=0, metavar="N", help="so many runs without a fault")
    add("--dtype", choices=("float64", "float32"), default="float64")
    add("--seed", type=int, default=0, help="of the pairs")
    add("--json", type=Path, metavar="FILE")
    add("--table", type=Path, metavar="FILE", help="the single faults as a table in Markdown")
    options = parser.parse_args(arguments)
    parts = {
        "single faults": _singles(options) if options.singles or options.only else [],
        "pairs": _pairs(options) if options.pairs else [],
        "five faults": _fives(options) if options.fives else [],
        "mistakes that no convention is": _outside(options) if options.outside else [],
        "runs without a fault": _right(options) if options.right else [],
    }
    for name, outcomes in parts.items():
        if outcomes:
            print(f"{name}: {sum(o.right for o in outcomes)} of {len(outcomes)} right")
    if options.table:
        options.table.write_text(table(parts["single faults"]) + "\n")
    if options.json:
        data = {name: [asdict(o) for o in outcomes] for name, outcomes in parts.items()}
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    return 0 if all(o.right for outcomes in parts.values() for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
