"""Do the tests notice? `python -m tests.apparatus.mutants --help`.

A change is made in the source, in a scratch copy of the repository, and the tests are run there:
the nearest ones, none left out after the first failure, then the default tier, then the whole
suite, until any fails. What no test fails on has survived: it needs a test, or an explanation in
SURVIVORS. `--json FILE` keeps the matrix of changes and the tests that failed on them.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests import ROOT
from tests.apparatus.mutant_cases import GROUPS, KINDS, OFF, Case, cases_of, sample_of
from tests.apparatus.mutant_worker import Worker

PROGRAM = "python -m tests.apparatus.mutants"
COPIED = ("pytorch_impl", "tf_impl", "jax_impl", "shared", "tests", "benchmarks", "docs")
TIERS = ("near", "default", "whole")
SURVIVORS: dict[tuple[str, str], str] = {}
"""(group, name) → why no test can fail on it."""
MANY = 10


@dataclass(frozen=True)
class Row:
    """A change and the tests that failed on it; `tier` is where they were, "" where none did.

    `digest` is of the changed source: a result counts for that source alone.
    """

    group: str
    kind: str
    name: str
    digest: str
    tier: str
    caught_by: tuple[str, ...]
    seconds: float


class Copy:
    """A copy of the repository as it is now, in which one change at a time is made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            ignored = shutil.ignore_patterns("__pycache__", "results", "*.png")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        for name in ("pyproject.toml", "README.md", "constraints.txt"):
            shutil.copy(ROOT / name, folder)

    @contextmanager
    def changed(self, sources: Mapping[str, str]) -> Iterator[None]:
        """Hold changed source in the copy for the time of a `with` block."""
        self._write(sources)
        try:
            yield
        finally:
            self._write({path: (ROOT / path).read_text("utf-8") for path in sources})

    def _write(self, sources: Mapping[str, str]) -> None:
        for path, source in sources.items():
            (self.folder / path).write_text(source, "utf-8")
            # Bytecode counts as current by the second and the size of its source.
            shutil.rmtree((self.folder / path).parent / "__pycache__", ignore_errors=True)


def try_case(copy: Copy, worker: Worker, case: Case, first: bool) -> Row:
    """Make a change in the copy, run the tests until some fail, and put the source back."""
    started, tier, caught_by = time.monotonic(), "", ()
    with copy.changed(case.sources):
        for name, arguments in zip(TIERS, case.stages(), strict=True):
            caught_by = tuple(worker.failures([*arguments, *(["-x"] if first else [])]))
            if caught_by:
                tier = name
                break
    seconds = round(time.monotonic() - started, 1)
    return Row(case.group, case.kind, case.name, case.digest, tier, caught_by, seconds)


def chosen(options: argparse.Namespace) -> list[Case]:
    """Return the cases that the options ask for; an unknown name in `only` is a ValueError."""
    cases = [
        case
        for group in options.group
        for kind in options.kind
        for case in cases_of(group, kind, options.generic, options.seed)
    ]
    unknown = sorted(set(options.only) - {case.name for case in cases})
    if unknown:
        known = ", ".join(sorted({case.name for case in cases}))
        raise ValueError(f"unknown changes {', '.join(unknown)}; expected some of {known}")
    cases = [case for case in cases if not options.only or case.name in options.only]
    return cases if options.sample is None else sample_of(cases, options.sample, options.seed)


def run(cases: Sequence[Case], file: Path | None, first: bool = False) -> list[Row]:
    """Try every case, one group after another; those that a file says were caught are known.

    Raises RuntimeError for a test that fails without a change too.
    """
    held = read_rows(file)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(Path(folder))
        for group in dict.fromkeys(case.group for case in cases):
            own = [case for case in cases if case.group == group]
            with Worker(copy.folder, _settings(own)) as worker:
                if not first:  # the end tries the tests that failed alone
                    worker.require_passing(own[0].stages()[0])
                for case in own:
                    if not _is_known(held.get((group, case.name)), case):
                        held[group, case.name] = try_case(copy, worker, case, first)
                        _report(held[group, case.name])
                        _write_rows(file, held)
                caught = dict.fromkeys(t for c in own for t in held[group, c.name].caught_by)
                tests = [test for test in caught if test.startswith("tests/")]
                worker.require_passing([*OFF, *tests] if tests else [])
    return [held[case.group, case.name] for case in cases]


def _settings(cases: Sequence[Case]) -> dict[str, str]:
    """Return environment variables: without jit JAX compiles each operation once.

    That takes two minutes, and then spares the ten seconds of compiling every changed step.
    """
    is_many = sum(case.group == "jax" for case in cases) > MANY
    return {"JAX_DISABLE_JIT": "1"} if is_many else {}


def _is_known(row: Row | None, case: Case) -> bool:
    """Whether this very source was caught; what survived is tried again."""
    return row is not None and bool(row.caught_by) and row.digest == case.digest


def read_rows(file: Path | None) -> dict[tuple[str, str], Row]:
    """Return the rows of a file by group and name; none without a file."""
    if file is None or not file.exists():
        return {}
    rows = [
        Row(**{**entry, "caught_by": tuple(entry["caught_by"])})
        for entry in json.loads(file.read_text("utf-8"))
    ]
    return {(row.group, row.name): row for row in rows}


def _write_rows(file: Path | None, held: Mapping[tuple[str, str], Row]) -> None:
    if file is not None:
        text = json.dumps([asdict(row) for row in held.values()], indent=1)
        file.write_text(f"{text}\n", "utf-8")


def _report(row: Row) -> None:
    found = f"{len(row.caught_by)} {row.tier}" if row.caught_by else "SURVIVED"
    print(f"{row.group:<8} {row.name}: {found} ({row.seconds:.0f} s)", flush=True)


def smallest_set(rows: Sequence[Row]) -> list[str]:
    """Return tests that together fail on all that is caught: the one of most first (greedy)."""
    left, tests = {row for row in rows if row.caught_by}, []
    while left:
        counts = Counter(test for row in left for test in row.caught_by)
        test = max(counts, key=lambda test: (counts[test], test))
        tests.append(test)
        left = {row for row in left if test not in row.caught_by}
    return tests


def _print_table(rows: Sequence[Row]) -> None:
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        found[row.group, row.kind][row.tier] += 1
    print(f"{'':<20} changes  default tier  whole suite  survivors")
    for (group, kind), tiers in found.items():
        count, default = tiers.total(), tiers["near"] + tiers["default"]
        print(f"{group:<8} {kind:<11} {count:7} {default:13} {count - tiers['']:12} {tiers['']:10}")
    caught = sum(row.tier != "" for row in rows)
    print(f"caught {caught} of {len(rows)} changes, {caught / len(rows):.1%}; ", end="")
    print(f"{len(smallest_set(rows))} tests are enough for that")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    add = parser.add_argument
    add("--group", nargs="+", choices=GROUPS, default=list(GROUPS), help="whose source")
    add("--kind", nargs="+", choices=KINDS, default=list(KINDS), help="of changes (default: all)")
    add("--only", nargs="+", metavar="NAME", default=[], help="these changes alone")
    add("--generic", type=int, metavar="N", default=75, help="generic ones of each (default: 75)")
    add("--sample", type=int, metavar="N", help="so many of each group, drawn at random")
    add("--seed", type=int, default=0, metavar="S", help="of what is drawn (default: 0)")
    add("--first", action="store_true", help="end each change at the first test that fails")
    add("--json", type=Path, metavar="FILE", help="keep the matrix there, and go on from it")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 1 if a change has survived unexplained, 2 for an error."""
    options = _parser().parse_args(arguments)
    try:
        rows = run(chosen(options), options.json, options.first)
    except (ValueError, RuntimeError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    _print_table(rows)
    alive = [row for row in rows if not row.caught_by and (row.group, row.name) not in SURVIVORS]
    for row in alive:
        print(f"survived: {row.group} {row.name}", file=sys.stderr)
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
