"""The command line of the benchmark, and the plan that it makes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from benchmarks import host
from benchmarks.request import DeviceName, Request
from shared.interface import IMPLEMENTATIONS
from shared.spec import LOSS_NAMES, SYSTEMS
from shared.streams import MAXIMUM_SEED

EXIT_BAD_INPUT = 2

# One step of three frameworks takes about a quarter of a second on two cores at this batch.
CPU_BATCH_SIZE = 16
ROUNDS = 2
TIME_BUDGET = 60.0
TIME_LIMIT = 180.0


@dataclass(frozen=True)
class Plan:
    """What to measure, with every default resolved; times in seconds.

    `steps` is per window, None for about a second's worth. Raises ValueError for a value that is
    out of range.
    """

    frameworks: tuple[str, ...]
    system: str
    loss: str
    width: int
    batch_size: int
    batch_reason: str
    device: DeviceName
    device_reason: str
    threads: int
    steps: int | None
    rounds: int
    time_budget: float
    time_limit: float
    seed: int
    json: Path | None

    def __post_init__(self) -> None:
        least = {"width": 1, "batch_size": 2, "threads": 1, "steps": 1, "rounds": 1}
        for name, minimum in least.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be at least {minimum}, received {value}")
        for name in ("time_budget", "time_limit"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be a positive number of seconds, received {value}")
        if self.threads > host.available_threads():
            raise ValueError(
                f"--threads must be at most {host.available_threads()}, the CPU cores that this "
                f"process may use; received {self.threads}"
            )
        if not 0 <= self.seed <= MAXIMUM_SEED:
            raise ValueError(f"--seed must be between 0 and {MAXIMUM_SEED}, received {self.seed}")

    def request(self, framework: str, number: int, budget: float) -> Request:
        """Return what one worker is asked to do within `budget` seconds."""
        return Request(
            framework=framework,
            round=number,
            system=self.system,
            loss=self.loss,
            width=self.width,
            batch_size=self.batch_size,
            device=self.device,
            threads=self.threads,
            seed=self.seed,
            steps=self.steps,
            budget=budget,
        )


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose error is one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {message}\n")


def parse(arguments: Sequence[str]) -> Plan:
    """Return the plan of a command line; exits as argparse does for --help and bad options.

    Raises ValueError for a value that is out of range.
    """
    options = _parser().parse_args(arguments)
    system = SYSTEMS[options.system]
    device, device_reason = choose_device(options.device)
    batch_size, batch_reason = options.batch_size, "as asked for"
    if batch_size is None:
        batch_size = CPU_BATCH_SIZE if device == "cpu" else system.batch_size
        batch_reason = f"default on a {device.upper()}"
    return Plan(
        frameworks=IMPLEMENTATIONS if options.framework == "all" else (options.framework,),
        system=options.system,
        loss=options.loss or system.loss,
        width=system.width if options.width is None else options.width,
        batch_size=batch_size,
        batch_reason=batch_reason,
        device=device,
        device_reason=device_reason,
        threads=host.available_threads() if options.threads is None else options.threads,
        steps=options.steps,
        rounds=options.rounds,
        time_budget=options.time_budget,
        time_limit=options.time_limit,
        seed=options.seed,
        json=options.json,
    )


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
        epilog=(
            "With no options: all three frameworks, dcgan64 at full width, float32, all cores, in "
            "less than two minutes on two CPU cores. A framework that is not installed is a row "
            "of its own that says how to install it. Exit code: 0 if every row is ok, 1 if one is "
            "not, 2 for bad input."
        ),
        allow_abbrev=False,
    )
    _add_what(parser)
    _add_how(parser)
    _add_time(parser)
    return parser


def _add_what(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to time")
    group.add_argument(
        "--framework",
        choices=(*IMPLEMENTATIONS, "all"),
        default="all",
        help="(default: %(default)s; one that is missing is an error row)",
    )
    group.add_argument(
        "--system", choices=SYSTEMS, default="dcgan64", help="networks (default: %(default)s)"
    )
    group.add_argument(
        "--loss", choices=LOSS_NAMES, help="adversarial loss (default: the system's own)"
    )
    group.add_argument(
        "--batch-size",
        type=int,
        metavar="B",
        help=f"images per step (default: {CPU_BATCH_SIZE} on a CPU, the system's own on a GPU)",
    )
    group.add_argument(
        "--width", type=int, metavar="W", help="channels beside the images (default: the system's)"
    )


def _add_how(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where and how")
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="auto: the GPU where there is a driver; never silently the CPU (default: %(default)s)",
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    group.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="steps per timed window (default: about a second's worth)",
    )
    group.add_argument(
        "--rounds",
        type=int,
        default=ROUNDS,
        metavar="N",
        help="processes per framework, at most; fewer if time runs out (default: %(default)s)",
    )
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="of the order, the weights and the inputs (default: %(default)s)",
    )
    group.add_argument("--json", type=Path, metavar="FILE", help="write all raw figures there")


def _add_time(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how long, in seconds")
    for name, default, purpose in (
        ("budget", TIME_BUDGET, "what the whole run aims at; each row has a minimum of its own"),
        ("limit", TIME_LIMIT, "after which a worker is killed"),
    ):
        text = f"{purpose} (default: %(default)g)"
        flag = f"--time-{name}"
        group.add_argument(flag, type=float, default=default, metavar="SECONDS", help=text)
