"""The benchmark: `python benchmarks/run.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):
    # Started as a file, benchmarks/ itself leads Python's path, and statistics.py there would
    # hide the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import contextlib
import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console

from benchmarks.document import assembly as document
from benchmarks.document import rows as results
from benchmarks.plan.options import EXIT_BAD_INPUT, parse
from benchmarks.plan.rounds import Plan
from benchmarks.show import tables as report
from benchmarks.worker import launcher

EXIT_FAILED_ROW = 1
EXIT_INTERRUPTED = 130
PEAK_TIME_LIMIT = 60.0
LOADING_TIME_LIMIT = 60.0
# No further round starts that, at the pace so far, would end later than this many time budgets:
# every worker takes its minimum of time, and on a busy machine that is a multiple of the usual.
LATEST_END = 1.8
BUSY_LOAD = 0.5  # processes that want a core, before the run starts any of its own


class _EndedError(Exception):
    """The run was asked to end: by Ctrl-C (2) or by SIGTERM (15)."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 for a failed row, 2 for bad input, 130."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        plan = parse(arguments)
        if plan.json is not None:
            results.check_writable(plan.json)
        if plan.report is not None:
            plan.report.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"benchmarks/run.py: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    console = report.make_console()
    found = document.header(plan, shlex.join(["python", "benchmarks/run.py", *arguments]))
    started = time.monotonic()
    try:
        with _ended_by_signals():
            _measure(plan, found, console, started)
    except _EndedError as ended:
        found["interrupted"] = True
        print(f"benchmarks/run.py: interrupted by {ended}", file=sys.stderr)
        _finish(plan, found, console, started)
        return ended.exit_code
    _finish(plan, found, console, started)
    return 0 if all(summary["status"] == "ok" for summary in found["summary"]) else EXIT_FAILED_ROW


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into _EndedError, so that the worker ends first, and what is left."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise _EndedError(number)

    previous = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _measure(plan: Plan, found: dict[str, Any], console: Console, started: float) -> None:
    """Fill a document's peaks, bandwidths, loading and rows."""
    _announce(plan, found, console)
    if plan.device == "cpu" and "float32" in plan.precisions:
        for threads in plan.threads:
            best = launcher.measure_gemm_peak(threads, PEAK_TIME_LIMIT)
            found["peaks"] += [best["peak"]] if best else []
            found["bandwidths"] += [best["bandwidth"]] if best else []
    if plan.input == "loader":
        found["loading"] = launcher.measure_loading(plan.system, LOADING_TIME_LIMIT)
    _add_rows(plan, found["rows"], started)


def _add_rows(plan: Plan, rows: list[dict[str, Any]], started: float) -> None:
    """Run the workers; a configuration that failed once is not tried again."""
    order = plan.order
    labels = document.labels_of(plan)
    for position, (configuration, number) in enumerate(order):
        own = [row for row in rows if row["configuration"] == configuration.id]
        if any(row["status"] != "ok" for row in own):
            continue
        elapsed = time.monotonic() - started
        if number > max((row["round"] for row in rows), default=0) and (
            elapsed * (number + 1) / number > LATEST_END * plan.time_budget
        ):
            print(f"no round {number + 1}: the time budget is used up", file=sys.stderr)
            break
        share = max(0.0, plan.time_budget - elapsed) / (len(order) - position)
        progress = f"{labels[configuration.id]}, round {number + 1} of {plan.rounds} …"
        print(progress, file=sys.stderr, flush=True)
        request = plan.request(configuration, number, share)
        rows.append(launcher.run_worker(request, plan.time_limit))


def _announce(plan: Plan, found: dict[str, Any], console: Console) -> None:
    work, machine = found["workload"], found["host"]
    console.print(
        f"{work['system']}, loss {work['loss']}, width {work['width']}, "
        f"{' '.join(plan.precisions)}: {work['flops_per_image'] / 1e9:.9f} GFLOP per image and "
        "step (analytic)"
    )
    batches, threads, devices = (
        " ".join(map(str, n)) for n in (plan.batch_sizes, plan.threads, plan.devices)
    )
    console.print(
        f"device {plan.device} ({plan.device_reason}), batch {batches} ({plan.batch_reason}), "
        f"threads {threads} of {machine['cores']}"
        + ("" if plan.devices == (1,) else f", devices {devices}")
        + f"; rounds {plan.rounds}, seed {plan.seed}, "
        f"aims at {plan.time_budget:g} s"
    )
    if machine["load_average"] > BUSY_LOAD:
        console.print(
            f"warning: load average {machine['load_average']:.1f} before the start: other "
            "processes share these cores, and the times will show it"
        )


def _finish(plan: Plan, found: dict[str, Any], console: Console, started: float) -> None:
    """Sum the rows up, show them, and write what was asked for."""
    document.conclude(plan, found)
    found["elapsed_seconds"] = time.monotonic() - started
    report.show(found, console)
    if plan.json is not None:
        results.write_json(plan.json, found)
        console.print(f"written to {plan.json}")
    if plan.report is not None:
        from benchmarks.show import page  # with matplotlib, which a run without a report can spare

        console.print(f"report in {page.write(plan.report, found)}")


if __name__ == "__main__":
    sys.exit(main())
