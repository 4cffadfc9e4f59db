"""Two results of one benchmark: `python benchmarks/compare.py OLD.json NEW.json`."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):
    # Started as a file, benchmarks/ itself leads Python's path, and statistics.py there would
    # hide the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from benchmarks.document.intervals import Ratio, unpaired_ratio
from benchmarks.document.rows import rates_of
from benchmarks.document.stored import HOST, WORKLOAD, load

EXIT_REGRESSION = 1
EXIT_BAD_INPUT = 2
# A change is one where the 95 % interval of the ratio excludes 1, and not less than this.
LEAST_CHANGE = 0.03


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 for a regression, 2 for bad input."""
    parser = _Parser(
        prog="benchmarks/compare.py",
        description="Say of each configuration whether it became faster, slower, or neither.",
        epilog="Exit code: 0, 1 if something became slower or lost its number, 2 for bad input.",
    )
    parser.add_argument("old", type=Path, metavar="OLD.json")
    parser.add_argument("new", type=Path, metavar="NEW.json")
    parser.add_argument("--force", action="store_true", help="compare different hosts or workloads")
    options = parser.parse_args(arguments)
    try:
        old, new = load(options.old), load(options.new)
        lines = differences(old, new)
        if lines and not options.force:
            raise ValueError(f"{'; '.join(lines)}; --force compares them all the same")
        if not _ids(old) & _ids(new):
            raise ValueError("the two files have no configuration in common; see their labels")
    except (ValueError, OSError) as error:
        print(f"benchmarks/compare.py: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    for line in lines:
        print(f"warning: {line}")
    return show(old, new)


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return one line for each thing that makes the times of two documents another matter."""
    pairs = [("host", name) for name in HOST] + [("workload", name) for name in WORKLOAD]
    lines = [
        f"{part} {name} differs: {old[part][name]} and {new[part][name]}"
        for part, name in pairs
        if old[part][name] != new[part][name]
    ]
    devices = [_devices(document) for document in (old, new)]
    for name in devices[0].keys() & devices[1].keys():
        if devices[0][name] != devices[1][name]:
            lines.append(f"device of {name} differs: {devices[0][name]} and {devices[1][name]}")
    return lines


def _ids(document: dict[str, Any]) -> set[str]:
    return {configuration["id"] for configuration in document["configurations"]}


def _devices(document: dict[str, Any]) -> dict[str, str]:
    return {r["configuration"]: r["settings"]["device"] for r in document["rows"] if r["settings"]}


def show(old: dict[str, Any], new: dict[str, Any]) -> int:
    """Print a line for each configuration; returns the exit code."""
    before, after = (_rates(document) for document in (old, new))
    common = [name for name in before if name in after]
    worse = 0
    for name in common:
        ratio = unpaired_ratio(after[name], before[name], new["seed"])
        word = judge(ratio)
        worse += word == "slower"
        rounds = min(len(before[name]), len(after[name]))
        note = ", after one round: not certain" if rounds < 2 else ""
        print(
            f"{name}: {word}, {ratio.value:.3f}x "
            f"(95 % interval {ratio.low:.3f} to {ratio.high:.3f}){note}"
        )
    failed = {s["configuration"]: s["status"] for s in new["summary"] if s["status"] != "ok"}
    for name in [name for name in before if name not in after]:
        worse += name in failed
        print(f"{name}: {failed.get(name, 'not measured any more')}")
    for name in [name for name in after if name not in before]:
        print(f"{name}: new")
    return EXIT_REGRESSION if worse else 0


def _rates(document: dict[str, Any]) -> dict[str, list[list[float]]]:
    """Return the images per second of every configuration that has them, by round."""
    batch_sizes = {c["id"]: c["batch_size"] for c in document["configurations"]}
    ok = {s["configuration"] for s in document["summary"] if s["status"] == "ok"}
    found: dict[str, list[list[float]]] = {name: [] for name in batch_sizes if name in ok}
    for row in document["rows"]:
        if row["configuration"] in ok:
            name = row["configuration"]
            found[name].append(rates_of(row, batch_sizes[name]))
    return found


def judge(ratio: Ratio) -> str:
    """Return faster, slower or no difference for a ratio of new to old images per second."""
    if ratio.low > 1 and ratio.value >= 1 + LEAST_CHANGE:
        return "faster"
    if ratio.high < 1 and ratio.value <= 1 - LEAST_CHANGE:
        return "slower"
    return "no difference"


if __name__ == "__main__":
    sys.exit(main())
