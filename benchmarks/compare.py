"""Report of each configuration of two files of run.py whether it became faster, slower, or neither.

Exit code: 0, 1 if something became slower or lost its number, 2 for bad input.
"""

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):
    # Started as a file, benchmarks/ itself leads Python's path instead of the checkout.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from typing import Any

from benchmarks.document.intervals import certainty, judge, medians, rates_of, unpaired_ratio
from benchmarks.document.stored import load
from benchmarks.show.tables import measured
from shared.files.errors import one_line
from shared.run.console import command

EXIT_REGRESSION = 1
# What makes the times of two documents another matter; the operations tell the image size.
SAME = {
    "host": ("cpu", "cores", "memory_bytes"),
    "workload": ("system", "loss", "width", "dtype", "flops_per_image"),
}


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", type=Path, metavar="OLD.json")
    parser.add_argument("new", type=Path, metavar="NEW.json")
    parser.add_argument("--force", action="store_true", help="compare different hosts or workloads")


def _compare(options: argparse.Namespace) -> int:
    old, new = load(options.old), load(options.new)
    lines = differences(old, new)
    if lines and not options.force:
        raise ValueError(f"{'; '.join(lines)}; --force compares them all the same")
    if not {c["id"] for c in old["configurations"]} & {c["id"] for c in new["configurations"]}:
        raise ValueError("the two files have no configuration in common; see their labels")
    for line in lines:
        print(one_line(f"warning: {line}"))
    return show(old, new)


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return one line for each thing that makes the times of two documents another matter."""
    found = {
        f"{place} {name}": (old[place][name], new[place][name])
        for place, names in SAME.items()
        for name in names
    }
    before, after = (
        {r["configuration"]: r["settings"]["device"] for r in document["rows"] if r["settings"]}
        for document in (old, new)
    )
    found |= {f"device of {name}": (before[name], after[name]) for name in before if name in after}
    return [f"{name} differs: {a} and {b}" for name, (a, b) in found.items() if a != b]


def show(old: dict[str, Any], new: dict[str, Any]) -> int:
    """Print a line for each configuration; returns the exit code."""
    before, after = (_rates(document) for document in (old, new))
    failed = {s["configuration"]: s["status"] for s in new["summary"] if s["status"] != "ok"}
    is_worse, lines, lost = False, [], []
    for name, rates in before.items():
        if name not in after:
            is_worse |= name in failed
            lost.append(f"{name}: {failed.get(name, 'not measured any more')}")
            continue
        ratio = unpaired_ratio(after[name], rates, int(new["seed"]))
        word = judge(ratio.value, certainty(medians(after[name]), 1 / medians(rates)))
        is_worse |= word == "slower"
        interval = f"(95 % interval {ratio.low:.3f} to {ratio.high:.3f})"
        single = min(len(rates), len(after[name])) < 2
        doubt = ", after one round: not certain" if single else ""
        lines.append(f"{name}: {word}, {ratio.value:.3f}x {interval}{doubt}")
    for line in [*lines, *lost, *(f"{name}: new" for name in after if name not in before)]:
        print(one_line(line))
    return EXIT_REGRESSION if is_worse else 0


def _rates(document: dict[str, Any]) -> dict[str, list[list[float]]]:
    """Return the images per second of every configuration that has them, by round."""
    rows = document["rows"]
    return {
        c["id"]: [rates_of(r, c["batch_size"]) for r in rows if r["configuration"] == c["id"]]
        for c, _ in measured(document)
    }


main = command("benchmarks/compare.py", __doc__, _add_options, _compare)

if __name__ == "__main__":
    sys.exit(main())
