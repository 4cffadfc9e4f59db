"""The command line of the benchmark: `parse` makes the plan of a run."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.plan import host
from benchmarks.plan.configuration import INPUTS, MODES, PRECISIONS
from benchmarks.plan.request import DeviceName
from benchmarks.plan.rounds import Plan
from shared.interface import IMPLEMENTATIONS
from shared.spec import LOSS_NAMES, SYSTEMS

EXIT_BAD_INPUT = 2

# One step of three frameworks takes about a quarter of a second on two cores at this batch.
CPU_BATCH_SIZE = 16
ROUNDS = 2
TIME_BUDGET = 60.0
# Of a larger run: with less, a worker has no time for more than the least number of windows.
WORKER_BUDGET = 10.0
TIME_LIMIT = 180.0

EPILOG = (
    "With no options: all three frameworks, dcgan64 at full width, float32, all cores, in about a "
    "minute and a half on two CPU cores. Options that take several values time every combination. "
    "A framework that is not installed is a row of its own that says how to install it. Exit code: "
    "0 if every row is ok, 1 if one is not, 2 for bad input, 130 after Ctrl-C."
)


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose error is one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {message}\n")


def parse(arguments: Sequence[str]) -> Plan:
    """Return the plan of a command line; exits as argparse does for --help and bad options.

    Raises ValueError for a value that is out of range.
    """
    given = vars(_parser().parse_args(arguments))
    system = SYSTEMS[given["system"]]
    device, device_reason = choose_device(given["device"])
    given |= {
        "frameworks": _frameworks(given.pop("framework")),
        "loss": given["loss"] or system.loss,
        "width": system.width if given["width"] is None else given["width"],
        "batch_sizes": given.pop("batch_size"),
        "batch_reason": "as asked for",
        "precisions": [PRECISIONS[name] for name in dict.fromkeys(given.pop("precision"))],
        "modes": list(dict.fromkeys(given.pop("mode"))),
        "device": device,
        "device_reason": device_reason,
        "threads": given["threads"] or [host.available_threads()],
    }
    if given["batch_sizes"] is None:
        given["batch_sizes"] = [CPU_BATCH_SIZE if device == "cpu" else system.batch_size]
        given["batch_reason"] = f"default on a {device.upper()}"
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return _with_budget(given)


def _frameworks(names: Sequence[str]) -> tuple[str, ...]:
    return IMPLEMENTATIONS if "all" in names else tuple(dict.fromkeys(names))


def _with_budget(given: dict[str, Any]) -> Plan:
    """Return the plan; where no time budget is given, as long as its workers need."""
    if given["time_budget"] is not None:
        return Plan(**given)
    plan = Plan(**given | {"time_budget": TIME_BUDGET})
    needed = WORKER_BUDGET * len(plan.configurations) * plan.rounds
    return Plan(**given | {"time_budget": max(TIME_BUDGET, needed)})


def choose_device(name: str) -> tuple[DeviceName, str]:
    """Return the device for auto, cpu or gpu, and why.

    Decided once for all frameworks, before any is imported: rows of one table are never on
    different devices. One that does not see the GPU has the status no_device.
    """
    if name == "cpu":
        return "cpu", "as asked for"
    if name == "gpu":
        return "gpu", "as asked for"
    driver = host.gpu_driver()
    return ("gpu", f"auto: found {driver}") if driver else ("cpu", "auto: no GPU driver here")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="benchmarks/run.py",
        description=(
            "Time one GAN training step of the same system in PyTorch, TensorFlow and JAX. A "
            "framework whose step does not agree with the NumPy reference gets no time."
        ),
        epilog=EPILOG,
        allow_abbrev=False,
    )
    _add_what(parser)
    _add_how(parser)
    _add_comparisons(parser)
    _add_output(parser)
    return parser


def _add_what(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what to time").add_argument
    add(
        "--framework",
        nargs="+",
        choices=(*IMPLEMENTATIONS, "all"),
        default=["all"],
        help="(default: all; one that is missing is an error row)",
    )
    add("--system", choices=SYSTEMS, default="dcgan64", help="networks (default: %(default)s)")
    add("--loss", choices=LOSS_NAMES, help="adversarial loss (default: the system's own)")
    text = f"images per step (default: {CPU_BATCH_SIZE} on a CPU, the system's own on a GPU)"
    add("--batch-size", nargs="+", type=int, metavar="N", help=text)
    add("--width", type=int, metavar="W", help="channels beside the images (default: the system's)")


def _add_how(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("where and how").add_argument
    text = "auto: the GPU where there is a driver; never silently the CPU (default: %(default)s)"
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help=text)
    text = "of convolutions and matrix products; tf32 needs a GPU (default: fp32)"
    add("--precision", nargs="+", choices=PRECISIONS, default=["fp32"], help=text)
    modes = tuple(itertools.chain.from_iterable(MODES.values()))
    text = "how a framework runs a step; each takes its own (default: its best on the device)"
    add("--mode", nargs="+", choices=modes, default=[], help=text)
    text = "CPU threads (default: all cores)"
    add("--threads", nargs="+", type=int, metavar="N", help=text)
    text = "so many GPUs or CPU devices share each batch and the threads (default: 1)"
    add("--devices", nargs="+", type=int, default=[1], metavar="N", help=text)
    text = (
        "where a step finds its batch: on the device, in the host's memory, or in the Python "
        "loader of the training commands (default: %(default)s)"
    )
    add("--input", choices=INPUTS, default="device", help=text)
    text = "images for --input loader (default: scikit-learn's digits)"
    add("--data", type=Path, metavar="PATH", help=text)


def _add_comparisons(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what to compare with").add_argument
    text = "also a plain, widely used style of step in each framework"
    add("--baselines", action="store_true", help=text)
    text = "time everything twice, as two configurations: their ratio is the noise floor"
    add("--aa", action="store_true", help=text)
    text = "processes per configuration, at most; fewer if time runs out (default: %(default)s)"
    add("--rounds", type=int, default=ROUNDS, metavar="N", help=text)
    text = "of the order, the weights and the inputs (default: %(default)s)"
    add("--seed", type=int, default=0, metavar="S", help=text)
    text = "steps per timed window (default: about a second's worth)"
    add("--steps", type=int, metavar="N", help=text)


def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how long, and where to").add_argument
    text = (
        "seconds that the whole run aims at; each row has a minimum of its own (default: "
        f"{TIME_BUDGET:g}, or {WORKER_BUDGET:g} per process)"
    )
    add("--time-budget", type=float, metavar="SECONDS", help=text)
    text = "seconds after which a worker is killed (default: %(default)g)"
    add("--time-limit", type=float, default=TIME_LIMIT, metavar="SECONDS", help=text)
    add("--json", type=Path, metavar="FILE", help="write all raw figures there")
    text = "write a page with tables and plots there: DIR/index.html"
    add("--report", type=Path, metavar="DIR", help=text)
