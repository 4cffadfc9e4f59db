"""The command line of the benchmark: `parse` makes the plan of a run."""

import argparse
import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.plan import host
from benchmarks.plan.configuration import CHOSEN, GATE_BATCH_SIZE, INPUTS, MODES, Plan
from shared.files.atomic import require_place
from shared.interface import IMPLEMENTATIONS, canonical_name
from shared.run.console import OneLineParser, positive, seed_number, whole
from shared.spec import LOSS_NAMES, SYSTEMS
from shared.spec.compute import PRECISIONS, check_replicas

# One step of three frameworks takes about a quarter of a second on two cores at this batch.
CPU_BATCH_SIZE = 16
ROUNDS = 2
TIME_BUDGET = 60.0
# Of a larger run: with less, a worker has no time for more than the least number of windows.
WORKER_BUDGET = 10.0
TIME_LIMIT = 180.0

EPILOG = (
    "With no options run.py times all three frameworks, dcgan64 at full width, float32, all cores, "
    "in about a minute and a half on two CPU cores. Options that take several values time every "
    "combination. gpu_check.py times each of one framework once, in one process and in short "
    "windows: none of its ratios is certain, and --rounds and the limits of time do nothing. Exit "
    "code: 0 if every row is ok, 1 if one is not, 2 for bad input, 130 after Ctrl-C."
)


def parse(arguments: Sequence[str], command: str = "benchmarks/run.py") -> Plan:
    """Return the plan of a command line; ValueError for what does not go together, or --json."""
    given = vars(_parser(command).parse_args(arguments))
    system = SYSTEMS[given["system"]]
    device, device_reason = choose_device(given["device"])
    batch_reason = "as asked for" if given["batch_sizes"] else f"default on a {device.upper()}"
    usual_size = CPU_BATCH_SIZE if device == "cpu" else system.batch_size
    frameworks = IMPLEMENTATIONS if "all" in given["frameworks"] else given["frameworks"]
    given |= {
        "frameworks": frameworks,
        **{name: given[name] or getattr(system, name) for name in CHOSEN},
        "batch_sizes": given["batch_sizes"] or [usual_size],
        "batch_reason": batch_reason,
        "precisions": [PRECISIONS[name] for name in given["precisions"]],
        "device": device,
        "device_reason": device_reason,
        "threads": given["threads"] or [host.available_threads()],
    }
    several = {n: list(dict.fromkeys(v)) for n, v in given.items() if isinstance(v, list | tuple)}
    plan = Plan(**given | several)
    _check(plan)
    if plan.time_budget is None:
        needed = WORKER_BUDGET * len(plan.configurations) * plan.rounds
        plan = dataclasses.replace(plan, time_budget=max(TIME_BUDGET, needed))
    return plan


def choose_device(name: str) -> tuple[str, str]:
    """Return the device for auto, cpu or gpu, which is one for all frameworks, and why."""
    if name == "auto":
        driver = host.gpu_driver()
        return ("gpu", f"auto: found {driver}") if driver else ("cpu", "auto: no GPU driver here")
    return name, "as asked for"


def _check(plan: Plan) -> None:
    """Raise ValueError for values that are right alone and wrong together."""
    for devices, batch_size in itertools.product(plan.devices, plan.batch_sizes):
        check_replicas(plan.spec(batch_size), devices, "global")
        if GATE_BATCH_SIZE % devices:
            raise ValueError(
                f"--devices must divide {GATE_BATCH_SIZE}, the batch that is compared with the "
                f"NumPy reference before anything is timed; received {devices}"
            )
    require_place(Path(plan.json) if plan.json else None)
    if "tf32" in plan.precisions and plan.device == "cpu":
        raise ValueError(
            "--precision tf32 needs a GPU, as CPUs have no TF32; received --device cpu: "
            "use fp32 or bf16"
        )
    for framework in plan.frameworks:
        if plan.modes and not set(plan.modes) & set(MODES[framework]):
            raise ValueError(
                f"--mode {' '.join(plan.modes)} has none for {framework}; expected one of "
                f"{', '.join(MODES[framework])}, or leave --mode out"
            )
    if plan.baselines and (plan.system, plan.loss) != ("dcgan64", "bce"):
        raise ValueError(
            "--baselines needs --system dcgan64 --loss bce, which is what public code trains; "
            f"received {plan.system}, {plan.loss}"
        )
    if plan.baselines and 1 not in plan.devices:
        advice = "--baselines are steps on one device; put 1 among --devices"
        raise ValueError(f"{advice}, received {' '.join(map(str, plan.devices))}")
    if plan.data is not None and plan.input != "loader":
        raise ValueError(f"--data needs --input loader, received --input {plan.input}")
    if plan.data is not None and not os.path.exists(plan.data):
        kinds = "a folder of images, an IDX or an .npz file"
        raise ValueError(f"--data {plan.data} does not exist; expected {kinds}")


def _parser(command: str) -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=command,
        usage="%(prog)s [options]",
        description=(
            "Time one GAN training step of the same system in PyTorch, TensorFlow and JAX. A "
            "framework whose step does not agree with the NumPy reference gets no time."
        ),
        epilog=EPILOG,
        allow_abbrev=False,
    )
    several: dict[str, Any] = {"nargs": "+", "metavar": "N"}
    names = several | {"metavar": "NAME"}
    add = parser.add_argument_group("what to time").add_argument
    named: dict[str, Any] = {"choices": (*IMPLEMENTATIONS, "all"), "type": canonical_name}
    text = f"{', '.join(IMPLEMENTATIONS)} or all; a missing one is an error row (default: all)"
    add("--framework", dest="frameworks", **named, default=["all"], help=text, **names)
    add("--system", choices=SYSTEMS, default="dcgan64", help="networks (default: %(default)s)")
    add("--loss", choices=LOSS_NAMES, help="adversarial loss (default: the system's own)")
    text = f"images per step (default: {CPU_BATCH_SIZE} on a CPU, the system's own on a GPU)"
    add("--batch-size", dest="batch_sizes", type=whole(2), help=text, **several)
    text = "channels beside the images (default: the system's)"
    add("--width", type=whole(1), metavar="W", help=text)
    text = "height and width of images, 32, 64, 128 or 256 for dcgan64 (default: the system's)"
    add("--image-size", type=whole(1), metavar="PIXELS", help=text)
    add("--channels", type=int, choices=(1, 3), help="of an image (default: the system's)")

    add = parser.add_argument_group("where and how").add_argument
    text = "auto: the GPU where there is a driver; never silently the CPU (default: %(default)s)"
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help=text)
    named = {"choices": PRECISIONS, "dest": "precisions", "default": ["fp32"]}
    text = "of convolutions and matrix products: fp32, bf16 or, on a GPU, tf32 (default: fp32)"
    add("--precision", **named, help=text, **names)
    every_mode = tuple(itertools.chain.from_iterable(MODES.values()))
    own = "; ".join(f"{' '.join(modes)} in {name}" for name, modes in MODES.items())
    text = f"how a framework runs a step: {own} (default: its best on the device)"
    add("--mode", dest="modes", choices=every_mode, default=[], help=text, **names)
    cores = whole(1, host.available_threads(), ", the CPU cores that this process may use")
    add("--threads", type=cores, help="CPU threads (default: all cores)", **several)
    text = "so many GPUs or CPU devices share each batch and the threads (default: 1)"
    add("--devices", type=int, default=[1], help=text, **several)
    text = (
        "where a step finds its batch: on the device, in the host's memory, or in the Python "
        "loader of the training commands (default: %(default)s)"
    )
    add("--input", choices=INPUTS, default="device", help=text)
    add("--data", metavar="PATH", help="images for --input loader (default: Fashion-MNIST)")

    add = parser.add_argument_group("what to compare with").add_argument
    text = "also a plain, widely used style of step in each framework"
    add("--baselines", action="store_true", help=text)
    text = "time everything twice, as two configurations: their ratio is the noise floor"
    add("--aa", action="store_true", help=text)
    text = "processes per configuration, at most; fewer if time runs out (default: %(default)s)"
    add("--rounds", type=whole(1), default=ROUNDS, metavar="N", help=text)
    text = "of the order, the weights and the inputs (default: %(default)s)"
    add("--seed", type=seed_number, default=0, metavar="S", help=text)
    text = "steps per timed window (default: about a second's worth)"
    add("--steps", type=whole(1), metavar="N", help=text)

    add = parser.add_argument_group("how long, and where to").add_argument
    text = (
        "seconds that the whole run aims at, half of them for measuring; each row has its own "
        f"minimum (default: {TIME_BUDGET:g}, or {WORKER_BUDGET:g} per process)"
    )
    add("--time-budget", type=positive, metavar="SECONDS", help=text)
    text = "seconds after which a worker is killed (default: %(default)g)"
    add("--time-limit", type=positive, default=TIME_LIMIT, metavar="SECONDS", help=text)
    add("--json", metavar="FILE", help="write all raw figures there")
    text = "write a page with tables and plots there: DIR/index.html"
    add("--report", metavar="DIR", help=text)
    return parser
