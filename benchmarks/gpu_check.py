"""Many points of one framework on a GPU in minutes: `python benchmarks/gpu_check.py --help`.

It takes the options of run.py. Where a GPU is lent for minutes, this times all configurations once,
in this process, each after the same gate; --rounds, --steps and the limits of time do nothing. One
process has no noise floor, so its figures rank nothing.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    # Started as a file, benchmarks/ itself leads Python's path instead of the checkout.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import gc
import shlex
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.document.assembly import header
from benchmarks.document.stored import write_json
from benchmarks.plan.configuration import Configuration, Plan, Request
from benchmarks.plan.costs import flops_per_image
from benchmarks.plan.options import parse
from benchmarks.worker import main as worker
from benchmarks.worker.measure import Recorder, time_steps
from benchmarks.worker.workloads import Workload
from shared.run.console import run_command

WARM_UP_SECONDS = 0.4
WINDOW_SECONDS = 0.25
WINDOWS = 5
COLUMNS = f"{'':38} {'batch':>5} {'img/s':>8} {'ms':>8} {'TFLOP/s':>8} {'GB':>5} {'first s':>8}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 for a failed point, 2 for bad input."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    return run_command("benchmarks/gpu_check.py", lambda: _run(given))


def _run(arguments: Sequence[str]) -> int:
    plan = parse(arguments, "benchmarks/gpu_check.py")
    if len(plan.frameworks) > 1:
        raise ValueError(
            f"--framework takes one here, received {' '.join(plan.frameworks)}: JAX keeps most of "
            "the memory of a GPU for itself; start the command once for each"
        )
    if plan.report is not None or plan.devices != [1]:
        raise ValueError("--report and --devices are for benchmarks/run.py; leave them out here")
    command = shlex.join(["python", "benchmarks/gpu_check.py", *arguments])
    points: list[dict[str, Any]] = []
    document = header(plan, command) | {"points": points}
    print(COLUMNS)
    checked: dict[tuple[str, str, str | None], str] = {}
    for configuration in plan.configurations:
        gc.collect()
        # Of a second round, because the first one also measures the peak of every configuration.
        request = Request(plan, configuration, 1, plan.time_budget)
        points.append(worker.run(request, _few_windows, checked))
        _show(plan, configuration, points[-1])
        if plan.json is not None:  # after each, because a lent machine may go at any time
            write_json(Path(plan.json), document)
    return int(any(point["status"] != "ok" for point in points))


def _few_windows(workload: Workload, request: Request, recorder: Recorder) -> None:
    """Fill a row's windows, once the GPU and what chooses its kernels are warm."""
    until = time.perf_counter() + WARM_UP_SECONDS
    milliseconds = time_steps(workload, 5)
    while time.perf_counter() < until:
        milliseconds = time_steps(workload, 5)
    steps = max(2, round(5e3 * WINDOW_SECONDS / milliseconds))
    times = [time_steps(workload, steps) for _ in range(WINDOWS)]
    recorder.row["windows"] = [{"steps": steps, "ms": ms} for ms in times]


def _show(plan: Plan, asked: Configuration, point: dict[str, Any]) -> None:
    label = plan.labels[asked.id]
    if point["status"] != "ok":
        print(f"{label[:38]:38} {point['error']}")
        return
    ms = statistics.median(window["ms"] / window["steps"] for window in point["windows"])
    tflops = flops_per_image(plan.spec(asked.batch_size)) * asked.batch_size / ms / 1e9
    gigabytes = (point["memory"]["peak_device_bytes"] or 0) / 1e9
    first = point["phases_ms"]["compile_first_step"] / 1e3
    print(
        f"{label[:38]:38} {asked.batch_size:5} {1e3 * asked.batch_size / ms:8.0f} {ms:8.3f} "
        f"{tflops:8.1f} {gigabytes:5.2f} {first:8.1f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
