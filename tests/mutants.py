"""Do the tests notice? `python -m tests.mutants --help`.

Small faults are planted in the three implementations' own source, in a scratch copy of the
repository, and the tests are run there, the quickest first. A fault that no test fails on has
survived: it needs a test, or an explanation in SURVIVORS.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from shared.interface import IMPLEMENTATIONS
from shared.streams import stream
from tests.planted.fault import Fault
from tests.planted.faults import FAULTS
from tests.planted.faults_of_runs import RUNS
from tests.planted.mutate import mutated_sources, package_of

ROOT = Path(__file__).parents[1]
COPIED = ("pytorch_impl", "tf_impl", "jax_impl", "shared", "tests", "benchmarks", "docs")
# Each is run only if those before it have noticed nothing.
TESTS: tuple[tuple[str, ...], ...] = (
    ("tests/test_agreement.py", "tests/test_losses.py", "tests/test_models.py"),
    ("tests/test_adam.py", "tests/test_batch_norm.py", "tests/test_systems.py"),
    ("tests/test_interface.py", "tests/test_checkpoint_format.py", "tests/test_training_run.py"),
    ("tests/test_native_formats.py", "tests/test_convert.py", "tests/test_change_of_framework.py"),
)
SURVIVORS: dict[tuple[str, str], str] = {}
"""(framework, fault) → why no test can fail on it."""
TIME_LIMIT = 600.0


@dataclass(frozen=True)
class Mutant:
    """A fault in a framework, and the test that noticed it; "" where none did."""

    framework: str
    fault: str
    caught_by: str
    seconds: float


@contextmanager
def scratch_copy() -> Iterator[Path]:
    """Yield a folder with a copy of the repository, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for name in COPIED:
            ignored = shutil.ignore_patterns("__pycache__", "results")
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=ignored)
        for name in ("pyproject.toml", "README.md", "constraints.txt"):
            shutil.copy(ROOT / name, folder)
        yield Path(folder)


def first_failure(folder: Path, framework: str) -> str:
    """Return the first test of a framework that fails in a copy of the repository, "" if none."""
    for files in TESTS:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        command += ["-k", framework, "--no-header", "--tb=no", *files]
        # The copy's packages come before the installed ones.
        environment = os.environ | {"PYTHONPATH": str(folder)}
        try:
            result = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIME_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"no end after {TIME_LIMIT:g} s: {files[0]}"
        if result.returncode != 0:
            return _failed_test(result.stdout)
    return ""


def _failed_test(output: str) -> str:
    lines = [x for x in output.splitlines() if x.startswith(("FAILED", "ERROR"))]
    return lines[0].split(" ")[1] if lines else output.strip().splitlines()[-1]


def try_mutant(folder: Path, framework: str, fault: Fault) -> Mutant:
    """Plant a fault in the copy, run the tests, and put the right source back."""
    started = time.monotonic()
    _write(folder, framework, [fault])
    try:
        caught_by = first_failure(folder, framework)
    finally:
        _write(folder, framework, [])
    return Mutant(framework, fault.name, caught_by, time.monotonic() - started)


def _write(folder: Path, framework: str, faults: Sequence[Fault]) -> None:
    for name, source in mutated_sources(framework, faults).items():
        (folder / package_of(framework) / name).write_text(source, "utf-8")


def chosen(frameworks: Sequence[str], sample: int | None, seed: int) -> list[tuple[str, Fault]]:
    """Return frameworks with faults: all, or a random sample."""
    every = [(w, f) for f in (*FAULTS, *RUNS) for w in frameworks if w not in f.absent]
    if sample is None or sample >= len(every):
        return every
    order = stream(seed, "mutants").permutation(len(every))
    return [every[i] for i in sorted(order[:sample])]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    add = parser.add_argument
    add("--framework", nargs="+", choices=IMPLEMENTATIONS, default=list(IMPLEMENTATIONS))
    add("--sample", type=int, metavar="N", help="so many of them, drawn at random")
    add("--seed", type=int, default=0, help="of the sample (default: %(default)s)")
    add("--only", nargs="+", metavar="FAULT", default=[], help="these faults alone")
    add("--json", type=Path, metavar="FILE")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 1 if a fault has survived without an explanation."""
    options = _parser().parse_args(arguments)
    cases = chosen(options.framework, None if options.only else options.sample, options.seed)
    cases = [(w, f) for w, f in cases if not options.only or f.name in options.only]
    mutants = []
    with scratch_copy() as folder:
        for framework in dict.fromkeys(framework for framework, _ in cases):
            failure = first_failure(folder, framework)
            if failure:
                print(f"{framework} fails without a fault: {failure}", file=sys.stderr)
                return 2
        for framework, fault in cases:
            mutants.append(try_mutant(folder, framework, fault))
            _report(mutants[-1])
    caught = sum(bool(mutant.caught_by) for mutant in mutants)
    print(f"caught {caught} of {len(mutants)} planted faults")
    if options.json:
        options.json.write_text(json.dumps([asdict(m) for m in mutants], indent=1) + "\n")
    alive = [m for m in mutants if not m.caught_by and (m.framework, m.fault) not in SURVIVORS]
    return 1 if alive else 0


def _report(mutant: Mutant) -> None:
    said = mutant.caught_by or "SURVIVED"
    print(f"{mutant.framework:<8} {mutant.fault}: {said} ({mutant.seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
