"""Do the tests notice? `python -m tests.apparatus.mutants --help`.

A change is made in the source, in a scratch copy of the repository, and tests are run there until
some fail: those that execute the changed statement, the quickest first, then those that execute
the changed folder, and with `--rest` the slow ones. What no test fails on has survived: it needs a
test, or an explanation in SURVIVORS. `--json FILE` keeps the matrix of changes and tests.
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
from tests.apparatus.executed_lines import Executed, read, record
from tests.apparatus.mutant_cases import GROUPS, KINDS, Case, cases_of, sample_of
from tests.apparatus.mutant_survivors import SURVIVORS
from tests.apparatus.mutant_tests import request, rest_of, stages
from tests.apparatus.mutant_worker import AT_MOST, Worker

PROGRAM = "python -m tests.apparatus.mutants"
COPIED = ("pytorch_impl", "tf_impl", "jax_impl", "shared", "tests", "benchmarks", "docs")


@dataclass(frozen=True)
class Row:
    """A change and the tests that failed on it.

    `stage` is where they were, "" where none did; `tried` counts the tests of the default tier
    that were chosen, of which no more ran than were needed; `digest` is of the changed source: a
    result counts for that source alone.
    """

    group: str
    kind: str
    name: str
    digest: str
    stage: str
    caught_by: tuple[str, ...]
    tried: int
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


def try_case(
    copy: Copy, worker: Worker, case: Case, executed: Executed, options: argparse.Namespace
) -> Row:
    """Make a change in the copy, run the tests until some fail, and put the source back."""
    started, tried, stage, caught_by = time.monotonic(), 0, "", []
    at_most = 1 if options.first else AT_MOST
    with copy.changed(case.sources):
        for name, tests in stages(case, executed)[: 1 if options.near else None]:
            if tests and not caught_by:
                stage, caught_by = name, worker.failures(request(tests, executed, at_most))
                tried += len(tests)
        if options.rest and not caught_by:
            stage, caught_by = "rest", worker.failures(rest_of(case))
    seconds = round(time.monotonic() - started, 1)
    of = (case.group, case.kind, case.name, case.digest)
    return Row(*of, stage if caught_by else "", tuple(caught_by), tried, seconds)


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


def run(cases: Sequence[Case], options: argparse.Namespace) -> list[Row]:
    """Try every case; those that the file `json` says were caught are known.

    `lines` is a folder of what `executed_lines.record` wrote, or where it shall. Raises
    RuntimeError for a test that is needed to catch a change and fails without one too.
    """
    held = read_rows(options.json)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(Path(folder) / "copy")
        lines = options.lines or Path(folder) / "lines"
        if not any(lines.glob("*.json")):
            record(copy.folder, lines, options.tests)
        executed = read(lines)
        with Worker(copy.folder) as worker:
            for case in cases:
                if not _is_known(held.get((case.group, case.name)), case):
                    row = try_case(copy, worker, case, executed, options)
                    held[row.group, row.name] = row
                    _report(row)
                    _write_rows(options.json, held)
            rows = [held[case.group, case.name] for case in cases]
            require_passing(worker, smallest_set(rows), executed)
    return rows


def require_passing(worker: Worker, tests: Sequence[str], executed: Executed) -> None:
    """Raise RuntimeError for a test that fails without a change: it catches none, then."""
    named = [test for test in tests if test.startswith("tests/")]
    failed = worker.failures(request(named, executed, at_most=0)) if named else []
    if failed:
        raise RuntimeError(f"{', '.join(failed)}: not passed without a change; fix it first")


def _is_known(row: Row | None, case: Case) -> bool:
    """Whether this very source was caught, or is explained; other survivors are tried again."""
    if row is None or row.digest != case.digest:
        return False
    return bool(row.caught_by) or case.place in SURVIVORS


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
    found = f"{len(row.caught_by)} {row.stage}" if row.caught_by else "SURVIVED"
    print(f"{row.group:<8} {row.name}: {found} of {row.tried} ({row.seconds:.0f} s)", flush=True)


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
        found[row.group, row.kind][row.stage] += 1
    print(f"{'':<20} changes  default tier  whole suite  survivors")
    for (group, kind), tiers in found.items():
        count, default = tiers.total(), tiers["line"] + tiers["folder"]
        print(f"{group:<8} {kind:<11} {count:7} {default:13} {count - tiers['']:12} {tiers['']:10}")
    caught = sum(row.stage != "" for row in rows)
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
    add("--lines", type=Path, metavar="FOLDER", help="keep there what each test executes")
    add("--tests", nargs="+", metavar="PATH", default=["tests"], help="these tests alone")
    add("--near", action="store_true", help="run the 24 quickest tests of each change alone")
    add("--rest", action="store_true", help="run the slow tests too, on what survives the others")
    add("--first", action="store_true", help="end each change at the first test that fails")
    add("--json", type=Path, metavar="FILE", help="keep the matrix there, and go on from it")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 1 if a change has survived unexplained, 2 for an error."""
    options = _parser().parse_args(arguments)
    try:
        cases = chosen(options)
        rows = run(cases, options)
    except (ValueError, RuntimeError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    _print_table(rows)
    survived = [case for case, row in zip(cases, rows, strict=True) if not row.caught_by]
    alive = [case for case in survived if case.place not in SURVIVORS]
    print(f"{len(survived) - len(alive)} of {len(survived)} survivors are explained")
    for case in alive:
        print(f"survived: {case.group} {case.name}", file=sys.stderr)
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
