"""The command `python -m {pytorch_impl,tf_impl,jax_impl}.train`: one set of options for all three.

With no options at all it trains a narrow system for a few steps on scikit-learn's digits, which
takes less than two minutes on two CPU cores; so does every other --system alone. Every option that
is given holds as it is given.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from shared.interface import MissingFrameworkError
from shared.replicas import BATCH_NORMS, BatchNormKind, check_replicas
from shared.spec import LOSS_NAMES, SYSTEMS, GeneratorBatch, SystemSpec
from shared.streams import MAXIMUM_SEED

GENERATOR_BATCHES = {name.replace("_", "-"): name for name in get_args(GeneratorBatch)}

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports
WAIT_LIMIT = 300.0  # seconds: more than any first step of a compiler takes here


@dataclass(frozen=True)
class QuickRun:
    """What a command without --full trains: enough for digits that can be read."""

    width: int
    batch_size: int
    steps: int
    sample_every: int
    checkpoint_every: int


QUICK_RUNS = {
    "dcgan64": QuickRun(16, 32, steps=600, sample_every=100, checkpoint_every=500),
    "conv28": QuickRun(32, 64, steps=600, sample_every=100, checkpoint_every=500),
    "mlp28": QuickRun(128, 64, steps=10_000, sample_every=500, checkpoint_every=4000),
}
"""By architecture."""


@dataclass(frozen=True)
class TrainingOptions:
    """What to train and how; `spec` is final, in its loss, width, batch size and order of a step.

    `data` is a path, or None for scikit-learn's digits. `out` is the folder of the run;
    `checkpoint_every` and `sample_every` count steps; `tensorboard` adds an event file to the
    folder. `devices`, `batch_norm`: see `shared.replicas`; `wait_limit` is in seconds. Raises
    ValueError for a number out of range.
    """

    implementation: str
    spec: SystemSpec
    data: Path | None
    steps: int
    seed: int
    out: Path
    resume: bool
    device: Literal["auto", "cpu", "gpu"]
    dtype: Literal["float32", "float64"]
    checkpoint_every: int
    sample_every: int
    tensorboard: bool
    devices: int = 1
    batch_norm: BatchNormKind = "global"
    wait_limit: float = WAIT_LIMIT

    def __post_init__(self) -> None:
        check_replicas(self.spec, self.devices, self.batch_norm)
        if not 0 < self.wait_limit < math.inf:
            raise ValueError(f"--wait-limit must be positive seconds, received {self.wait_limit}")
        for name in ("steps", "checkpoint_every", "sample_every"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be at least 1, received {getattr(self, name)}")
        if self.spec.batch_size < 2:
            raise ValueError(
                "--batch-size must be at least 2, because batch normalisation needs a variance; "
                f"received {self.spec.batch_size}"
            )
        if not 0 <= self.seed <= MAXIMUM_SEED:
            raise ValueError(f"--seed must be between 0 and {MAXIMUM_SEED}, received {self.seed}")


def run_command(
    implementation: str,
    train: Callable[[TrainingOptions], object],
    argv: Sequence[str] | None = None,
) -> int:
    """Run the command line of one implementation and return its exit code.

    `train` does the work. Bad input, a missing framework and an unwilling disk become one line on
    stderr and exit code 2, Ctrl-C becomes 130; `--debug` adds the traceback. Anything else is a
    mistake of ours and passes through.
    """
    parser = build_parser(implementation)
    arguments = parser.parse_args(argv)
    try:
        train(_options(implementation, arguments))
    except (ValueError, OSError, MissingFrameworkError, KeyboardInterrupt) as error:
        if arguments.debug:
            traceback.print_exc()
        interrupted = isinstance(error, KeyboardInterrupt)
        message = str(error) or "interrupted" if interrupted else f"error: {error}"
        print(f"{parser.prog}: {' '.join(message.split())}", file=sys.stderr)
        return EXIT_INTERRUPTED if interrupted else EXIT_BAD_INPUT
    return 0


def build_parser(implementation: str) -> argparse.ArgumentParser:
    """Return the parser, the same in all three implementations but for the name."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {implementation}_impl.train",
        description=(
            f"Train a GAN in {implementation}. The same options and the same --seed start the same "
            "run in\npytorch, tf and jax."
        ),
        epilog=(
            "With no options: a narrow dcgan64 on scikit-learn's digits. The defaults take less "
            "than two minutes\non them on two CPU cores, and are the same on every device and for "
            "every data set:\n\n"
            f"{_quick_runs()}\n\n"
            "--full takes the system's own width and batch size instead. What is given explicitly "
            "always holds."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_what_to_train(parser)
    _add_how_to_train(parser, implementation)
    return parser


def _add_what_to_train(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to train")
    group.add_argument(
        "--system",
        choices=SYSTEMS,
        default="dcgan64",
        help="dcgan64: convolutional, 64x64 in colour; dcgan64-lsgan: the same with a dense last "
        "layer and loss lsgan; conv28: convolutional, 28x28 grey; mlp28: dense layers only, 28x28 "
        "grey (default: %(default)s)",
    )
    group.add_argument(
        "--loss", choices=LOSS_NAMES, help="adversarial loss (default: the system's own)"
    )
    group.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="folder of images, IDX file as MNIST's (raw or .gz), or .npz "
        "(default: scikit-learn's digits)",
    )
    _add_sizes(group)
    _add_order_of_a_step(group)
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="of the weights, the latents and the order of the images (default: %(default)s)",
    )


def _add_sizes(group: argparse._ArgumentGroup) -> None:
    own = ", ".join(
        f"{name} {system.width} and {system.batch_size}"
        for name, system in SYSTEMS.items()
        if name in QUICK_RUNS
    )
    group.add_argument(
        "--width",
        type=int,
        metavar="W",
        help="size of the narrowest hidden layer, of which the others are multiples "
        "(default: by system, see below)",
    )
    group.add_argument(
        "--batch-size",
        type=int,
        metavar="B",
        help="images per update, at least 2 (default: by system, see below)",
    )
    group.add_argument(
        "--full",
        action="store_true",
        help=f"default to the system's own width and batch size ({own})",
    )
    group.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="training steps in all, those before a --resume included "
        "(default: by system, see below)",
    )
    group.add_argument(
        "--learning-rate",
        type=float,
        metavar="LR",
        help="of both networks (default: the system's own times its width over --width, because "
        "Adam's steps have one size and fewer channels add up to less)",
    )


def _add_order_of_a_step(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--d-steps",
        type=int,
        metavar="K",
        help="discriminator updates per generator update, each with fresh images and latents, as "
        "in Goodfellow et al. 2014, Algorithm 1 (default: the system's own, 1 in all of them)",
    )
    group.add_argument(
        "--generator-batch",
        choices=GENERATOR_BATCHES,
        help="what the generator learns from. same-images: the fakes that the discriminator has "
        "just seen; same-latents: images made anew from their latents, after the discriminator "
        "has changed; new-latents: images from latents of its own, as in Goodfellow et al. 2014, "
        "Algorithm 1 (default: the system's own, whatever --d-steps is: same-latents for conv28, "
        "same-images for the others)",
    )


def _quick_runs() -> str:
    """Return a table of the defaults of every system."""
    fields = [field.name for field in dataclasses.fields(QuickRun)]
    rows = [["", *(f"--{field.replace('_', '-')}" for field in fields)]]
    for name, system in SYSTEMS.items():
        quick = QUICK_RUNS[system.architecture]
        rows.append([name, *(str(getattr(quick, field)) for field in fields)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _add_how_to_train(parser: argparse.ArgumentParser, implementation: str) -> None:
    group = parser.add_argument_group("where and how")
    group.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"folder of the run (default: runs/{implementation}-SYSTEM-LOSS, or the next free "
        "name with -2, -3 …; with --resume the latest of these)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="continue from the last checkpoint in --out, whichever framework wrote it; "
        "repeat the options of the first run, --steps may grow",
    )
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="auto is the GPU where the framework finds one (default: %(default)s)",
    )
    group.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="of the weights and of all arithmetic (default: %(default)s)",
    )
    _add_devices(group)
    for what in ("sample", "checkpoint"):
        group.add_argument(
            f"--{what}-every",
            type=int,
            metavar="N",
            help=f"steps between two {what}s; the last step always makes one "
            "(default: by system, see below)",
        )
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write losses, samples and their quality for TensorBoard into --out; "
        "`tensorboard --logdir runs` shows all runs side by side",
    )
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _add_devices(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="train on N GPUs, or N virtual CPU devices; each takes its part of every batch, "
        "which N must divide. The run is the same for every N (default: %(default)s)",
    )
    group.add_argument(
        "--batch-norm",
        choices=BATCH_NORMS,
        default="global",
        help="with several devices: normalise by the statistics of the global batch, or each "
        "device by those of its own part (default: %(default)s)",
    )
    group.add_argument(
        "--wait-limit",
        type=float,
        default=WAIT_LIMIT,
        metavar="SECONDS",
        help="with several processes: give up when another one has not answered for so long "
        "(default: %(default)g)",
    )


def _options(implementation: str, arguments: argparse.Namespace) -> TrainingOptions:
    spec = _spec(arguments)
    quick = QUICK_RUNS[spec.architecture]
    counts = {}
    for name in ("steps", "checkpoint_every", "sample_every"):
        given = getattr(arguments, name)
        counts[name] = getattr(quick, name) if given is None else given
    default_out = Path("runs") / f"{implementation}-{spec.name}-{spec.loss}"
    choose = _latest_name if arguments.resume else _free_name
    return TrainingOptions(
        implementation=implementation,
        spec=spec,
        data=arguments.data,
        **counts,
        seed=arguments.seed,
        out=choose(default_out) if arguments.out is None else arguments.out,
        resume=arguments.resume,
        device=arguments.device,
        dtype=arguments.dtype,
        tensorboard=arguments.tensorboard,
        devices=arguments.devices,
        batch_norm=arguments.batch_norm,
        wait_limit=arguments.wait_limit,
    )


def _spec(arguments: argparse.Namespace) -> SystemSpec:
    """Return the system that was asked for with everything that was given in its place."""
    system = SYSTEMS[arguments.system]
    default = system if arguments.full else QUICK_RUNS[system.architecture]
    if arguments.d_steps is not None and arguments.d_steps < 1:
        raise ValueError(f"--d-steps must be at least 1, received {arguments.d_steps}")
    given = {
        "loss": arguments.loss,
        "width": arguments.width,
        "batch_size": arguments.batch_size,
        "discriminator_steps": arguments.d_steps,
        "generator_batch": GENERATOR_BATCHES.get(arguments.generator_batch),
    }
    sizes = {"width": default.width, "batch_size": default.batch_size}
    changes = {name: value for name, value in given.items() if value is not None}
    spec = system.replace(**{**sizes, **changes})
    return _with_learning_rates(spec, system, arguments.learning_rate)


def _with_learning_rates(
    spec: SystemSpec, system: SystemSpec, learning_rate: float | None
) -> SystemSpec:
    """Return the spec with the rate that was asked for, or the system's scaled to the width.

    Unscaled, a generator of width 16 needs 600 steps before it can paint a black background, and
    its discriminator has won by then.
    """
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise ValueError(f"--learning-rate must be positive and finite, received {learning_rate}")
    changes = {}
    for name in ("generator_optimizer", "discriminator_optimizer"):
        adam = getattr(system, name)
        rate = adam.learning_rate * system.width / spec.width
        changes[name] = replace(adam, learning_rate=learning_rate or rate)
    return spec.replace(**changes)


def _free_name(folder: Path) -> Path:
    """Return the folder, or the first of folder-2, folder-3 … that does not exist."""
    names = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([folder], names) if not path.exists())


def _latest_name(folder: Path) -> Path:
    """Return the one of folder, folder-2, folder-3 … with the highest number that exists."""
    pattern = re.compile(re.escape(folder.name) + r"(?:-(\d+))?")
    numbers = [
        int(match[1] or 1)
        for path in folder.parent.glob("*")
        if (match := pattern.fullmatch(path.name))
    ]
    highest = max(numbers, default=1)
    return folder if highest == 1 else folder.with_name(f"{folder.name}-{highest}")
