"""The benchmark: `python benchmarks/run.py --help`."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):
    # Started as a file, benchmarks/ itself leads Python's path, and statistics.py there would
    # hide the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import dataclasses
import datetime
import shlex
import signal
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape

from benchmarks import host, launcher, report, results
from benchmarks.options import EXIT_BAD_INPUT, Plan, parse
from shared.streams import stream

EXIT_FAILED_ROW = 1
EXIT_INTERRUPTED = 130
PEAK_TIME_LIMIT = 60.0
# No further round starts that, at the pace so far, would end later than this many time budgets:
# every worker takes its minimum of time, and on a busy machine that is a multiple of the usual.
LATEST_END = 1.8
BUSY_LOAD = 0.5  # processes that want a core, before the run starts any of its own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 for a failed row, 2 for bad input, 130."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        plan = parse(arguments)
        if plan.json is not None:
            results.check_writable(plan.json)
    except (ValueError, OSError) as error:
        print(f"benchmarks/run.py: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    previous = signal.signal(signal.SIGTERM, _terminate)  # so that the worker is ended first
    try:
        document = _run(plan, arguments, report.make_console())
    except KeyboardInterrupt:
        print("benchmarks/run.py: interrupted; no results were written", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0 if all(row["status"] == "ok" for row in document["rows"]) else EXIT_FAILED_ROW


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _run(plan: Plan, arguments: Sequence[str], console: Console) -> dict[str, Any]:
    started = time.monotonic()
    order = draw_order(plan)
    document = _header(plan, arguments, order)
    _announce(plan, document, console)
    if plan.device == "cpu":
        document["gemm_peak"] = launcher.measure_gemm_peak(plan.threads, PEAK_TIME_LIMIT)
    document["rows"] = _rows(plan, order, started)
    document["summary"] = [
        results.summarise(
            document["rows"], name, document["workload"], document["gemm_peak"], plan.seed
        )
        for name in plan.frameworks
    ]
    document["elapsed_seconds"] = time.monotonic() - started
    _conclude(document, console)
    if plan.json is not None:
        results.write_json(plan.json, document)
        console.print(f"written to {escape(str(plan.json))}")
    return document


def draw_order(plan: Plan) -> list[tuple[str, int]]:
    """Return (framework, round) of every worker: rounds one after another, each one shuffled.

    So a machine that slows down during the run slows every framework down.
    """
    return [
        (plan.frameworks[i], number)
        for number in range(plan.rounds)
        for i in stream(plan.seed, "benchmark_order", number).permutation(len(plan.frameworks))
    ]


def _rows(plan: Plan, order: Sequence[tuple[str, int]], started: float) -> list[dict[str, Any]]:
    """Run the workers; a framework that failed once is not tried again."""
    rows: list[dict[str, Any]] = []
    for position, (framework, number) in enumerate(order):
        if any(row["framework"] == framework and row["status"] != "ok" for row in rows):
            continue
        elapsed = time.monotonic() - started
        if number > max((row["round"] for row in rows), default=0) and (
            elapsed * (number + 1) / number > LATEST_END * plan.time_budget
        ):
            print(f"no round {number + 1}: the time budget is used up", file=sys.stderr)
            break
        share = max(0.0, plan.time_budget - elapsed) / (len(order) - position)
        print(f"{framework}, round {number + 1} of {plan.rounds} …", file=sys.stderr, flush=True)
        rows.append(launcher.run_worker(plan.request(framework, number, share), plan.time_limit))
    return rows


def _header(
    plan: Plan, arguments: Sequence[str], order: Sequence[tuple[str, int]]
) -> dict[str, Any]:
    """Return the document with everything that is known before the first worker starts."""
    request = plan.request(plan.frameworks[0], 0, plan.time_budget)
    requested = dataclasses.asdict(plan) | {"json": plan.json and str(plan.json)}
    return {
        "schema_version": results.SCHEMA_VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "benchmarks/run.py", *arguments]),
        "git": host.git_state(),
        "seed": plan.seed,
        "order": [list(pair) for pair in order],
        "host": host.describe(),
        "requested": requested,
        "workload": results.workload(request.spec, request.dtype),
        "gemm_peak": None,
    }


def _announce(plan: Plan, document: dict[str, Any], console: Console) -> None:
    work, machine = document["workload"], document["host"]
    gigaflops = work["flops_per_image"] / 1e9
    console.print(
        f"{work['system']}, loss {work['loss']}, width {work['width']}, {work['dtype']}: "
        f"{gigaflops:.9f} GFLOP per image and step (analytic)"
    )
    console.print(
        f"device {plan.device} ({plan.device_reason}), batch {plan.batch_size} "
        f"({plan.batch_reason}), threads {plan.threads} of {machine['cores']}; "
        f"rounds {plan.rounds}, seed {plan.seed}, aims at {plan.time_budget:g} s"
    )
    if machine["load_average"] > BUSY_LOAD:
        console.print(
            f"warning: load average {machine['load_average']:.1f} before the start: other "
            "processes share these cores, and the times will show it"
        )


def _conclude(document: dict[str, Any], console: Console) -> None:
    console.print(report.results_table(document))
    console.print(report.peak_line(document), soft_wrap=True)
    for line in report.failures(document):
        console.print(line, soft_wrap=True)
    console.print(report.verdict(document["summary"]))
    console.print(f"elapsed {document['elapsed_seconds']:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
