"""Do the tests notice? `python -m tests.mutants --help`.

Small faults are planted in the three implementations' own source, in a scratch copy of the
repository, and the tests are run there, the likeliest to notice first. A fault that no test fails
on has survived: it needs a test, or an explanation in SURVIVORS. At the end every test that noticed
one is run without a fault: one that fails then too has noticed nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from shared.interface import IMPLEMENTATIONS
from shared.spec.streams import stream
from tests.mutant_tests import KINDS, Kind, kind_of, stages
from tests.mutant_worker import Worker
from tests.planted.fault import Fault
from tests.planted.mutate import mutated_sources, package_of

PROGRAM = "python -m tests.mutants"
ROOT = Path(__file__).parents[1]
COPIED = ("pytorch_impl", "tf_impl", "jax_impl", "shared", "tests", "benchmarks", "docs")
SURVIVORS: dict[tuple[str, str], str] = {}
"""(framework, fault) → why no test can fail on it."""
MANY = 10
Sources = Mapping[str, str]
Case = tuple[str, Fault]


@dataclass(frozen=True)
class Mutant:
    """A fault in a framework and the first test that failed, "" where none did.

    `digest` is of the changed source: a result counts for that source alone.
    """

    framework: str
    fault: str
    digest: str
    caught_by: str
    seconds: float


class Copy:
    """A copy of the repository as it is now, in which one fault at a time is planted."""

    def __init__(self, folder: Path, frameworks: Sequence[str]) -> None:
        self.folder, self.frameworks = folder, frameworks
        for name in COPIED:
            ignored = shutil.ignore_patterns("__pycache__", "results", "*.png")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        for name in ("pyproject.toml", "README.md", "constraints.txt"):
            shutil.copy(ROOT / name, folder)
        self._plain = {framework: mutated_sources(framework, []) for framework in frameworks}

    @contextmanager
    def planted(self, framework: str, sources: Sources) -> Iterator[None]:
        """Hold a package's changed source in the copy for the time of a `with` block."""
        plain = self._plain[framework]
        changed = {name: sources[name] for name in plain if sources[name] != plain[name]}
        self._write(framework, changed)
        try:
            yield
        finally:
            self._write(framework, {name: plain[name] for name in changed})

    def _write(self, framework: str, sources: Sources) -> None:
        package = self.folder / package_of(framework)
        # Bytecode counts as current by the second and the size of its source.
        shutil.rmtree(package / "__pycache__", ignore_errors=True)
        for name, source in sources.items():
            (package / name).write_text(source, "utf-8")


def digest_of(sources: Sources) -> str:
    """Return what tells one package's source from another's."""
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()[:16]


def try_mutant(copy: Copy, worker: Worker, case: Case, sources: Sources) -> Mutant:
    """Plant a fault in the copy, run the tests until one fails, and put the right source back."""
    framework, fault = case
    started, caught_by = time.monotonic(), ""
    with copy.planted(framework, sources):
        for arguments in stages(framework, fault):
            caught_by = caught_by or worker.first_failure(arguments)
    seconds = round(time.monotonic() - started, 1)
    return Mutant(framework, fault.name, digest_of(sources), caught_by, seconds)


def chosen(frameworks: Sequence[str], kinds: Sequence[Kind], only: Sequence[str]) -> list[Case]:
    """Return frameworks with their faults; an unknown name in `only` is a ValueError."""
    faults = [fault for kind in kinds for fault in KINDS[kind]]
    unknown = sorted(set(only) - {fault.name for fault in faults})
    if unknown:
        known = ", ".join(fault.name for fault in faults)
        raise ValueError(f"unknown faults {', '.join(unknown)}; expected some of {known}")
    faults = [fault for fault in faults if not only or fault.name in only]
    return [(w, fault) for w in frameworks for fault in faults if w not in fault.absent]


def sample_of(cases: Sequence[Case], count: int, seed: int) -> list[Case]:
    """Return so many cases of each framework, drawn at random."""
    drawn: list[Case] = []
    for framework in dict.fromkeys(framework for framework, _ in cases):
        own = [case for case in cases if case[0] == framework]
        order = stream(seed, f"mutants/{framework}").permutation(len(own))
        drawn += [own[i] for i in sorted(order[:count])]
    return drawn


def run(cases: Sequence[Case], file: Path | None) -> list[Mutant]:
    """Try every case, one framework after another; those that a file says were caught are known.

    Raises RuntimeError for a test that fails without a fault too.
    """
    planted = {(w, f.name): mutated_sources(w, [f]) for w, f in cases}
    held = _read(file)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(Path(folder), list(dict.fromkeys(framework for framework, _ in cases)))
        for framework in copy.frameworks:
            own = [case for case in cases if case[0] == framework]
            with Worker(copy.folder, _settings(own)) as worker:
                for case in own:
                    key = (framework, case[1].name)
                    if not _is_known(held.get(key), planted[key]):
                        held[key] = try_mutant(copy, worker, case, planted[key])
                        _report(held[key])
                        _write(file, held)
                caught = dict.fromkeys(held[w, f.name].caught_by for w, f in own)
                worker.require_passing([test for test in caught if test])
    return [held[w, f.name] for w, f in cases]


def _settings(cases: Sequence[Case]) -> dict[str, str]:
    """Return environment variables: without jit JAX compiles each operation once.

    That takes two minutes, and then spares the ten seconds of compiling every mutant's step.
    """
    is_many = sum(framework == "jax" for framework, _ in cases) > MANY
    return {"JAX_DISABLE_JIT": "1"} if is_many else {}


def _is_known(mutant: Mutant | None, sources: Sources) -> bool:
    """Whether a mutant of this very source was caught; one that survived is tried again."""
    return mutant is not None and mutant.caught_by != "" and mutant.digest == digest_of(sources)


def _read(file: Path | None) -> dict[tuple[str, str], Mutant]:
    if file is None or not file.exists():
        return {}
    mutants = [Mutant(**entry) for entry in json.loads(file.read_text("utf-8"))]
    return {(mutant.framework, mutant.fault): mutant for mutant in mutants}


def _write(file: Path | None, held: Mapping[tuple[str, str], Mutant]) -> None:
    if file is not None:
        text = json.dumps([asdict(mutant) for mutant in held.values()], indent=1)
        file.write_text(f"{text}\n", "utf-8")


def _report(mutant: Mutant) -> None:
    said = mutant.caught_by or "SURVIVED"
    print(f"{mutant.framework:<8} {mutant.fault}: {said} ({mutant.seconds:.0f} s)", flush=True)


def _print_table(mutants: Sequence[Mutant]) -> None:
    planted = Counter((m.framework, kind_of(m.fault)) for m in mutants)
    caught = Counter((m.framework, kind_of(m.fault)) for m in mutants if m.caught_by)
    for (framework, kind), count in planted.items():
        print(f"{framework:<8} {kind:<12} caught {caught[framework, kind]} of {count}")
    total = sum(caught.values())
    print(f"caught {total} of {len(mutants)} planted faults, {total / len(mutants):.1%}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    add = parser.add_argument
    add("--framework", nargs="+", choices=IMPLEMENTATIONS, default=list(IMPLEMENTATIONS))
    add("--kind", nargs="+", choices=KINDS, default=list(KINDS), help="of faults (default: all)")
    add("--only", nargs="+", metavar="FAULT", default=[], help="these faults alone")
    add("--sample", type=int, metavar="N", help="so many of each framework, drawn at random")
    add("--seed", type=int, default=0, metavar="S", help="of the sample (default: 0)")
    add("--json", type=Path, metavar="FILE", help="keep results there, and go on from them")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 1 if a fault has survived without an explanation, 2 for an error."""
    options = _parser().parse_args(arguments)
    try:
        cases = chosen(options.framework, options.kind, options.only)
        if options.sample is not None:
            cases = sample_of(cases, options.sample, options.seed)
        mutants = run(cases, options.json)
    except (ValueError, RuntimeError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    _print_table(mutants)
    alive = [m for m in mutants if not m.caught_by and (m.framework, m.fault) not in SURVIVORS]
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
