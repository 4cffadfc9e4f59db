"""How often run.py and compare.py are wrong about a difference, or miss one.

What simulated runs give goes through the functions that decide in run.py and compare.py. The noise
is that of runs that took place: the logarithm of a rate is the sum of what a round has in common,
of the luck of a process and of a window, each drawn from stored rows, with their heavy tails.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.document import intervals
from benchmarks.document.stored import load
from benchmarks.worker.measure import THROUGHPUT_WINDOWS
from shared.interface import Array
from shared.run.console import command, positive, seed_number, whole
from tests import ROOT

RESULTS = sorted((ROOT / "benchmarks" / "results").glob("cpu-*.json"))


class Noise(NamedTuple):
    """Deviations of the logarithm of a rate, each a sample to draw from."""

    rounds: Array
    processes: Array
    windows: Array


def fit(documents: Sequence[dict[str, Any]]) -> Noise:
    """Return the noise of documents; ValueError where none has two configurations in two rounds."""
    samples: dict[str, list[Array]] = {"rounds": [], "processes": [], "windows": []}
    for document in documents:
        medians: dict[str, dict[int, float]] = {}
        for row in (row for row in document["rows"] if len(row["windows"]) > 1):
            logs = np.log(intervals.rates_of(row, 1))
            samples["windows"].append(_centred(logs, 0))
            medians.setdefault(row["configuration"], {})[row["round"]] = float(np.median(logs))
        rounds = set().union(*medians.values())
        complete = [[own[i] for i in rounds] for own in medians.values() if own.keys() == rounds]
        if len(rounds) > 1 and len(complete) > 1:
            deviations = _centred(np.array(complete), 1)
            samples["rounds"].append(deviations.mean(axis=0))
            samples["processes"].append(_centred(deviations, 0).ravel())
    if not samples["processes"]:
        raise ValueError("no file has two configurations in two rounds: there is no noise to fit")
    found = {name: np.concatenate(parts) for name, parts in samples.items()}
    # The median of n normal windows has the variance π/2 · σ²/n, which is in that of processes.
    count = found["windows"].size / len(samples["windows"])
    own, windows = found["processes"].var(), np.pi / 2 * found["windows"].var() / count
    found["processes"] *= np.sqrt(max(0.0, own - windows) / own)
    return Noise(**found)


def _centred(values: Array, axis: int) -> Array:
    count = values.shape[axis]  # a sample of n numbers is widened for its mean: √(n/(n - 1))
    return (values - values.mean(axis=axis, keepdims=True)) * np.sqrt(count / (count - 1))


def decisions(
    noise: Noise, rounds: int, slowdown: float, draw: np.random.Generator
) -> tuple[str, str]:
    """Return what run.py and compare.py say of one pair, the first side slower by `slowdown`."""

    def side(common: Array, level: float) -> list[list[float]]:
        process = draw.choice(noise.processes, rounds)
        windows = draw.choice(noise.windows, (rounds, THROUGHPUT_WINDOWS[0]))
        return (level * np.exp((common + process)[:, None] + windows)).tolist()

    common, other = draw.choice(noise.rounds, (2, rounds))
    new, old, old_run = side(common, 1 - slowdown), side(common, 1.0), side(other, 1.0)
    per_round = intervals.ratios_of_rounds(new, old)
    change = intervals.median_of_rounds(new) / intervals.median_of_rounds(old_run)
    return (
        intervals.judge(float(np.median(per_round)), intervals.certainty(per_round)),
        intervals.judge(
            change, intervals.certainty(intervals.medians(new), 1 / intervals.medians(old_run))
        ),
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--pairs", type=whole(1, 100_000), default=300, metavar="N")
    add("--rounds", type=whole(2, 1000), nargs="+", default=[5, 10, 20, 40], metavar="N")
    text = "part of the speed that is lost (default: %(default)s)"
    add("--slowdown", type=positive, default=0.1, metavar="PART", help=text)
    add("--seed", type=seed_number, default=0, metavar="S")
    text = "where the noise comes from (default: benchmarks/results/cpu-*.json)"
    add("files", type=Path, nargs="*", default=RESULTS, metavar="FILE.json", help=text)


def _print_rates(given: argparse.Namespace) -> None:
    if given.slowdown >= 1:
        raise ValueError(f"--slowdown must be below 1, received {given.slowdown:g}")
    noise = fit([load(path) for path in given.files])
    deviations = ", ".join(f"{name} {own.std():.1%}" for name, own in noise._asdict().items())
    print(f"noise of {len(given.files)} files, standard deviations: {deviations}")
    for rounds in given.rounds:
        draw = np.random.default_rng(given.seed)
        same, slower = (
            np.array([decisions(noise, rounds, loss, draw) for _ in range(given.pairs)])
            for loss in (0.0, given.slowdown)
        )
        wrong, found = (same != "no difference").mean(axis=0), (slower == "slower").mean(axis=0)
        for name, bad, good in zip(("run.py", "compare.py"), wrong, found, strict=True):
            print(
                f"{name}, {rounds} rounds: of {given.pairs} equal pairs {bad:.1%} are called "
                f"slower or faster; {given.slowdown:.0%} slower is found in {good:.1%}"
            )


main = command("python -m tests.apparatus.error_rate", __doc__, _add_options, _print_rates)

if __name__ == "__main__":
    sys.exit(main())
