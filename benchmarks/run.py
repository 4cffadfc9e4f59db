"""The benchmark: `python benchmarks/run.py --help`."""

import sys
from pathlib import Path

if __package__ in (None, ""):
    # Started as a file, benchmarks/ itself leads Python's path instead of the checkout.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from rich.console import Console

from benchmarks.document import assembly
from benchmarks.document.stored import write_json
from benchmarks.plan.configuration import Plan, Request
from benchmarks.plan.options import parse
from benchmarks.show import tables
from benchmarks.worker import main as worker
from shared.files.child_process import require_posix
from shared.files.errors import InputError
from shared.run.console import StoppedEarly, print_error, run_command, set_handlers

EXIT_FAILED_ROW = 1
# No further round starts that, at the pace so far, would end later than this many time budgets:
# every worker takes its minimum of time, and on a busy machine that is a multiple of the usual.
LATEST_END = 1.8
MEASURING_SHARE = 0.5  # of the time budget, in equal parts; the rest is for starting and compiling
BUSY_LOAD = 0.5  # processes that want a core, before the run starts any of its own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 for a failed row, 2 for bad input, 130."""
    return run("benchmarks/run.py", arguments, _in_processes)


def run(
    command: str,
    arguments: Sequence[str] | None,
    measure: Callable[[Plan, Sequence[dict[str, Any]]], Iterator[dict[str, Any]]],
    *,
    save_each: bool = False,
) -> int:
    """Run a command whose rows `measure` makes one after another, given those before.

    `save_each`: write --json after each row, because a machine may go at any time.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    return run_command(command, lambda: _run(command, given, measure, save_each))


def _run(command: str, arguments: Sequence[str], measure: Any, save_each: bool) -> int:
    plan = parse(arguments, command)
    require_posix()
    if plan.report is not None:
        if Path(plan.report).is_file():
            raise InputError(f"--report {plan.report} is a file; expected a folder or a new name")
        Path(plan.report).mkdir(parents=True, exist_ok=True)
    console = tables.make_console()
    document = assembly.header(plan, shlex.join(["python", command, *arguments]))
    started, exit_code = time.monotonic(), 0

    def conclude() -> None:
        assembly.conclude(plan, document)
        document["elapsed_seconds"] = time.monotonic() - started
        if plan.json is not None:
            write_json(Path(plan.json), document)

    # Both raise, so that the worker ends first, and what was measured until then is written.
    previous = set_handlers(dict.fromkeys((signal.SIGINT, signal.SIGTERM), _stop))
    try:
        _announce(plan, document, console)
        for row in measure(plan, document["rows"]):
            document["rows"].append(row)
            if save_each:
                conclude()
    except StoppedEarly as stop:
        document["interrupted"], exit_code = True, stop.exit_code
        print_error(f"{command}: {stop}")
    finally:
        set_handlers(previous)
    conclude()
    tables.show(document, console)
    if plan.json is not None:
        console.print(f"written to {plan.json}")
    if plan.report is not None:
        from benchmarks.show import page  # with matplotlib, which a run without a report can spare

        console.print(f"report in {page.write(Path(plan.report), document)}")
    is_failed = any(summary["status"] != "ok" for summary in document["summary"])
    return exit_code or (EXIT_FAILED_ROW if is_failed else 0)


def _stop(number: int, frame: object) -> NoReturn:
    raise StoppedEarly(128 + number, "while measuring")


def _announce(plan: Plan, document: dict[str, Any], console: Console) -> None:
    work, machine = document["workload"], document["host"]
    console.print(
        f"{work['system']}, loss {work['loss']}, width {work['width']}, "
        f"images of {work['image_size']} pixels and {work['channels']} channels, "
        f"{' '.join(plan.precisions)}: {work['flops_per_image'] / 1e9:.9f} GFLOP per image and "
        "step (analytic)"
    )
    asked = (plan.batch_sizes, plan.threads, plan.devices)
    batches, threads, devices = (" ".join(map(str, numbers)) for numbers in asked)
    console.print(
        f"device {plan.device} ({plan.device_reason}), batch {batches} ({plan.batch_reason}), "
        f"threads {threads} of {machine['cores']}"
        + ("" if plan.devices == [1] else f", devices {devices}")
        + f"; rounds {plan.rounds}, seed {plan.seed}, aims at {plan.time_budget:g} s"
    )
    if machine["load_average"] > BUSY_LOAD:
        console.print(
            f"warning: load average {machine['load_average']:.1f} before the start: other "
            "processes share these cores, and the times will show it"
        )


def _in_processes(plan: Plan, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the row of every configuration and round, each measured in a process of its own."""
    started, order = time.monotonic(), plan.order
    share = MEASURING_SHARE * plan.time_budget / len(order)
    for configuration, number in order:
        if any(r["status"] != "ok" for r in rows if r["configuration"] == configuration.id):
            continue  # one that failed once is not tried a second time
        elapsed = time.monotonic() - started
        is_next_round = number > max((row["round"] for row in rows), default=0)
        if is_next_round and elapsed * (number + 1) / number > LATEST_END * plan.time_budget:
            print_error(f"no round {number + 1}: the time budget is used up")
            break
        print_error(f"{plan.labels[configuration.id]}, round {number + 1} of {plan.rounds} …")
        request = Request(plan, configuration, number, share)
        yield worker.run_worker(request, plan.time_limit)


if __name__ == "__main__":
    sys.exit(main())
