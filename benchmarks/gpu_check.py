"""Many points of one framework on a GPU in minutes: `python benchmarks/gpu_check.py --help`.

It takes the options of run.py and writes the same document. Where a GPU is lent for minutes, this
times all configurations once, in this process, in short windows; --rounds and the limits of time do
nothing. One process has no noise floor, so none of its ratios is certain.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    # Started as a file, benchmarks/ itself leads Python's path instead of the checkout.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import gc
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import run
from benchmarks.plan.configuration import Plan, Request
from benchmarks.worker import main as worker
from shared.run.console import print_error

BUDGET = 2.0  # seconds of measuring each configuration
WINDOW_MS = 250.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 for a failed point, 2 for bad input, 130."""
    return run.run("benchmarks/gpu_check.py", arguments, _in_this_process, save_each=True)


def _in_this_process(plan: Plan, _: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the row of every configuration, measured once and here."""
    if len(plan.frameworks) > 1:
        raise ValueError(
            f"--framework takes one here, received {' '.join(plan.frameworks)}: JAX keeps most of "
            "the memory of a GPU for itself; start the command once for each"
        )
    if plan.devices != [1]:
        raise ValueError("--devices is for benchmarks/run.py; leave it out here")
    checked: dict[tuple[str, str, str | None], dict[str, Any]] = {}
    for configuration in plan.configurations:
        gc.collect()
        print_error(f"{plan.labels[configuration.id]} …")
        yield worker.run(Request(plan, configuration, 0, BUDGET, WINDOW_MS), checked)


if __name__ == "__main__":
    sys.exit(main())
