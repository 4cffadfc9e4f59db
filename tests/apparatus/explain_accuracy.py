"""How often `shared.explain` is right: `python -m tests.apparatus.explain_accuracy --help`.

Faults are planted in the real source of each framework (`tests.apparatus.planted`); a verdict is
right where it names exactly the fields of `Conventions`, with their values, that the fault changes.
"""

import argparse
import gc
import importlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from shared.explain import Explanation, explain
from shared.interface import IMPLEMENTATIONS, canonical_name, load_implementation
from shared.spec import Conventions, SystemSpec
from tests.apparatus.explain_draws import (
    described,
    fives,
    outside_runs,
    pairs,
    right_runs,
    same_numbers,
    tangles,
)
from tests.apparatus.planted.fault import Fault
from tests.apparatus.planted.faults import FAULTS
from tests.apparatus.planted.mutate import mutated


@dataclass(frozen=True)
class Outcome:
    """What was planted in which framework, and what was named; `run` tells equal ones apart."""

    framework: str
    dtype: str
    planted: tuple[str, ...]
    verdict: str
    named: str
    right: bool
    seconds: float
    run: str = ""


def same_fields(explanation: Explanation, wanted: dict[str, Any]) -> bool:
    """Return whether an explanation names exactly these fields with these values."""
    found = explanation.fields
    if explanation.verdict != "named" or set(found) != set(wanted):
        return False
    return all(_same_value(found[field], value) for field, value in wanted.items())


def _same_value(found: Any, wanted: Any) -> bool:
    if isinstance(found, float) and isinstance(wanted, float | int):
        return math.isclose(found, wanted, rel_tol=1e-3, abs_tol=1e-9)
    return found == wanted


def is_told_apart(explanation: Explanation, spec: SystemSpec, wanted: dict[str, Any]) -> bool:
    """Return whether what is named is what was planted, or computes the same and says *or*."""
    if same_fields(explanation, wanted):
        return True
    if explanation.located or not any("; or " in name for name in explanation.named):
        return False
    both = (Conventions().replace(**fields) for fields in (explanation.fields, wanted))
    return same_numbers(spec, *both)


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
    right = is_told_apart(explanation, spec_of(faults), wanted)
    return _outcome(framework, faults, explanation, right, dtype, started)


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


def _report(outcome: Outcome) -> None:
    mark = "right" if outcome.right else "WRONG"
    found = outcome.named or outcome.verdict
    planted = " + ".join(outcome.planted) or f"nothing ({outcome.run})"
    print(
        f"{mark} {outcome.framework:<8}{outcome.dtype} {planted}: {found} "
        f"({outcome.seconds:.0f} s)",
        flush=True,
    )


class Log:
    """What was found already, in a file of one JSON object a line: none of it is run again."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        read = [json.loads(line) for line in lines]
        outcomes = [Outcome(**data | {"planted": tuple(data["planted"])}) for data in read]
        self.known = {(o.framework, o.dtype, o.planted, o.run): o for o in outcomes}

    def outcome(
        self,
        framework: str,
        dtype: str,
        faults: Sequence[Fault],
        find: Callable[[], Outcome],
        run: str = "",
    ) -> Outcome:
        """Return the outcome of a run, found now or before, and print it."""
        key = framework, dtype, tuple(fault.name for fault in faults), run
        if key not in self.known:
            self.known[key] = replace(find(), run=run)
            if self.path:
                with self.path.open("a") as file:
                    file.write(json.dumps(asdict(self.known[key])) + "\n")
        _report(self.known[key])
        return self.known[key]

    def of_faults(self, framework: str, faults: Sequence[Fault], dtype: str) -> Outcome:
        """Return the outcome of `explain_faults`."""
        find = partial(explain_faults, framework, faults, dtype)
        return self.outcome(framework, dtype, faults, find)


def _singles(options: argparse.Namespace, log: Log) -> list[Outcome]:
    return [
        log.of_faults(framework, [fault], options.dtype)
        for fault in FAULTS
        if not options.only or fault.name in options.only
        for framework in options.framework
        if framework not in fault.absent
    ]


def _pairs(options: argparse.Namespace, log: Log) -> list[Outcome]:
    return [
        log.of_faults(framework, pair, options.dtype)
        for framework, pair in pairs(options.pairs, options.seed)
        if framework in options.framework
    ]


def _fives(options: argparse.Namespace, log: Log) -> list[Outcome]:
    drawn = fives(options.fives, options.seed)
    return [log.of_faults("pytorch", five, options.dtype) for five in drawn]


def _outside(options: argparse.Namespace, log: Log) -> list[Outcome]:
    """Plant mistakes that no convention is: right is to locate them and to name nothing."""

    def find(fault: Fault, dtype: str, spec: SystemSpec, seed: int) -> Outcome:
        started = time.monotonic()
        with mutated("pytorch", [fault]) as implementation:
            found = explain(implementation, spec, dtype=dtype, seed=seed, steps=4)
        right = bool(found.located or found.findings) and not found.traps
        outcome = _outcome("pytorch", [fault], found, right, dtype, started)
        where = "; ".join(
            dict.fromkeys([place.stage for place in found.located] + [*found.findings])
        )
        return replace(outcome, verdict=f"{found.verdict}: {where}")

    return [
        log.outcome(
            "pytorch",
            dtype,
            [fault],
            partial(find, fault, dtype, spec, seed),
            f"{seed}: {described(spec)}",
        )
        for fault, dtype, spec, seed in outside_runs(options.outside, options.seed)
    ]


def _tangles(options: argparse.Namespace, log: Log) -> list[Outcome]:
    """Plant a mistake that no convention is beside others: right is to name no other one."""

    def find(faults: Sequence[Fault]) -> Outcome:
        started = time.monotonic()
        with mutated("pytorch", faults) as implementation:
            found = explain(implementation, faults[0].spec, dtype=options.dtype, steps=2)
        wanted = {field: value for fault in faults for field, value in fault.deviation.items()}
        right = bool(found.located) and all(
            field in wanted and _same_value(value, wanted[field])
            for field, value in found.fields.items()
        )
        return _outcome("pytorch", faults, found, right, options.dtype, started)

    return [
        log.outcome("pytorch", options.dtype, faults, partial(find, faults))
        for faults in tangles(options.tangles, options.seed)
    ]


def _right(options: argparse.Namespace, log: Log) -> list[Outcome]:
    def find(framework: str, dtype: str, spec: SystemSpec, seed: int) -> Outcome:
        started = time.monotonic()
        found = explain(load_implementation(framework), spec, dtype=dtype, seed=seed)
        return _outcome(framework, [], found, found.verdict == "rounding", dtype, started)

    drawn = right_runs(options.right, options.seed, options.framework)
    return [
        log.outcome(
            framework,
            dtype,
            [],
            partial(find, framework, dtype, spec, 1000 * options.seed + number),
            f"{number}: {described(spec)}",
        )
        for number, (framework, dtype, spec) in enumerate(drawn)
    ]


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
    names = {"type": canonical_name, "choices": IMPLEMENTATIONS}
    add("--framework", nargs="+", **names, default=list(IMPLEMENTATIONS))
    add("--singles", action="store_true", help="every planted fault in every framework")
    add("--only", nargs="+", default=[], help="of the single faults, these")
    add("--pairs", type=int, default=0, metavar="N", help="so many random pairs of faults")
    add("--fives", type=int, default=0, metavar="N", help="so many times five faults, PyTorch")
    text = "so many runs with a mistake that no convention is, PyTorch"
    add("--outside", type=int, default=0, metavar="N", help=text)
    text = "so many times one of these beside one to three faults, PyTorch"
    add("--tangles", type=int, default=0, metavar="N", help=text)
    add("--right", type=int, default=0, metavar="N", help="so many runs without a fault")
    add("--dtype", choices=("float64", "float32"), default="float64")
    add("--seed", type=int, default=0, help="of the pairs")
    add("--json", type=Path, metavar="FILE")
    text = "a line for each run; those that it has already are not made again"
    add("--log", type=Path, metavar="FILE", help=text)
    add("--table", type=Path, metavar="FILE", help="the single faults as a table in Markdown")
    options = parser.parse_args(arguments)
    log = Log(options.log)
    parts = {
        "single faults": _singles(options, log) if options.singles or options.only else [],
        "pairs": _pairs(options, log) if options.pairs else [],
        "five faults": _fives(options, log) if options.fives else [],
        "mistakes that no convention is": _outside(options, log) if options.outside else [],
        "tangles": _tangles(options, log) if options.tangles else [],
        "runs without a fault": _right(options, log) if options.right else [],
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
