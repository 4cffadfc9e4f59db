"""The command of the fuzzer; see the package."""

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from tests.apparatus.fuzz.parent import Summary, run_reader
from tests.apparatus.fuzz.reader import FAULT, MEBIBYTE, READ, REFUSED, Outcome, draw_of
from tests.apparatus.fuzz.readers import READERS

PROGRAM = "python -m tests.apparatus.fuzz"
SHOWN = 5  # faults of one kind are one line; so many kinds are shown in full


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 1 where a fault was found, 2 for bad input."""
    options = _parser().parse_args(arguments)
    chosen = [READERS[name] for name in options.reader or READERS]
    if options.keep is not None:
        return _keep(options)
    faults = 0
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(options.log, "w", encoding="utf-8")) if options.log else None
        _say(f"{'reader':<16}{'inputs':>7}{'read':>7}{'refused':>9}{'FAULT':>7}", log, end="")
        _say(f"{'peak MiB':>10}{'bound':>7}{'slowest s':>11}", log)
        for reader in chosen:
            if reader.missing:
                _say(f"{reader.name:<16} skipped: {', '.join(reader.missing)} not installed", log)
                continue
            indices = range(options.count) if options.case is None else [options.case]
            summary = run_reader(reader, options.seed, indices, lambda o: _log(o, log))
            _show(summary, options.seed, log)
            faults += len(summary.faults)
    return 1 if faults else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--reader", action="append", choices=READERS, help="only this one; may be repeated")
    add("--count", type=int, default=2000, metavar="N", help="inputs of each (default: 2000)")
    add("--seed", type=int, default=1, metavar="S", help="of the inputs (default: 1)")
    add("--case", type=int, metavar="I", help="only the input of this number")
    add("--log", type=Path, metavar="FILE", help="write a line for every input")
    add("--keep", type=Path, metavar="FOLDER", help="make --case there, read nothing")
    return parser


def _keep(options: argparse.Namespace) -> int:
    """Make one input and leave it there for a look."""
    if options.case is None or len(options.reader or ()) != 1:
        print(f"{PROGRAM}: error: --keep needs one --reader and --case", file=sys.stderr)
        return 2
    options.keep.mkdir(parents=True, exist_ok=True)
    (name,) = options.reader
    reader = READERS[name]
    reader.prepare()
    case = reader.make(draw_of(name, options.seed, options.case), options.keep)
    print(f"{str(case.path)!a}: {case.label}")
    return 0


def _log(outcome: Outcome, log: TextIO | None) -> None:
    if log is not None:
        found = " | ".join(outcome.lines).encode("utf-8", "backslashreplace").decode()
        print(f"{outcome.index} {outcome.verdict} [{outcome.label}] {found}", file=log)


def _show(summary: Summary, seed: int, log: TextIO | None) -> None:
    counts = [summary.counts.get(verdict, 0) for verdict in (READ, REFUSED, FAULT)]
    name = summary.reader.name
    cells = [f"{name:<16}{sum(counts):>7}{counts[0]:>7}{counts[1]:>9}{counts[2]:>7}"]
    cells.append(f"{summary.peak / MEBIBYTE:>10.0f}{summary.reader.memory / MEBIBYTE:>7.0f}")
    _say(f"{''.join(cells)}{summary.slowest:>11.1f}", log)
    kinds = Counter(fault.signature for fault in summary.faults)
    for signature, count in kinds.most_common(SHOWN):
        first = next(fault for fault in summary.faults if fault.signature == signature)
        _say(f"  {count} x {signature} [{first.label}]", log)
        for line in first.lines[:16]:
            _say(f"    {line}", log)
        _say(f"    again: {PROGRAM} --reader {name} --seed {seed} --case {first.index}", log)
    if len(kinds) > SHOWN:
        _say(f"  and {len(kinds) - SHOWN} more kinds", log)


def _say(text: str, log: TextIO | None, end: str = "\n") -> None:
    shown = text.encode("utf-8", "backslashreplace").decode()
    for stream in (sys.stdout, log):
        if stream is not None:
            print(shown, end=end, file=stream, flush=True)


if __name__ == "__main__":
    sys.exit(main())
