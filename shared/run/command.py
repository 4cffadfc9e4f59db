"""The command `python -m {pytorch_impl,tf_impl,jax_impl}.train`: one set of options for all three.

With no options at all it trains a narrow system for a few steps on scikit-learn's digits, which
takes less than two minutes on two CPU cores; so does every other --system alone. Every option that
is given holds as it is given.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from shared.interface import MissingFrameworkError
from shared.run.config import config_text, read_config
from shared.run.console import EXIT_INTERRUPTED, print_error, safe_streams
from shared.run.failures import StoppedEarly, is_out_of_memory, out_of_memory_message
from shared.run.folder import RunFolder
from shared.run.options import (
    ALL_CHECKPOINTS,
    GENERATOR_BATCHES,
    KEEP_CHECKPOINTS,
    QUICK_RUNS,
    TrainingOptions,
)
from shared.run.parser import build_parser
from shared.spec import SYSTEMS, SystemSpec

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_INTERRUPTED",
    "QUICK_RUNS",
    "TrainingOptions",
    "build_parser",
    "run_command",
]

EXIT_BAD_INPUT = 2


def run_command(
    implementation: str,
    train: Callable[[TrainingOptions], object],
    argv: Sequence[str] | None = None,
) -> int:
    """Run the command line of one implementation and return its exit code.

    `train` does the work. Bad input, a missing framework, an unwilling disk, training that
    diverges and memory that runs out become one line on stderr and exit code 2; a run that was
    stopped and has saved itself ends with the code that a shell would report, 130 for Ctrl-C.
    `--debug` adds the traceback. Anything else is a mistake of ours and passes through.
    """
    with safe_streams():
        parser = build_parser(implementation)
        arguments = parser.parse_args(argv)
        spec: SystemSpec | None = None
        try:
            arguments = _with_config(parser, arguments, argv)
            spec = _spec(arguments)
            train(_options(implementation, arguments, spec))
        except (ValueError, OSError, MissingFrameworkError) as error:
            return _fail(parser, arguments, f"error: {error}", EXIT_BAD_INPUT)
        except KeyboardInterrupt as error:
            code = error.exit_code if isinstance(error, StoppedEarly) else EXIT_INTERRUPTED
            return _fail(parser, arguments, str(error) or "interrupted", code)
        except Exception as error:
            if spec is None or not is_out_of_memory(error):
                raise
            message = f"error: {out_of_memory_message(error, spec)}"
            return _fail(parser, arguments, message, EXIT_BAD_INPUT)
        return 0


def _fail(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, message: str, code: int
) -> int:
    if arguments.debug:
        print_error(traceback.format_exc().rstrip())
    print_error(f"{parser.prog}: {' '.join(message.split())}")
    return code


def _with_config(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, argv: Sequence[str] | None
) -> argparse.Namespace:
    """Return the arguments with those of --config in place of the defaults."""
    if arguments.config is None:
        return arguments
    parser.set_defaults(**read_config(arguments.config, parser))
    return parser.parse_args(argv)


def _options(
    implementation: str, arguments: argparse.Namespace, spec: SystemSpec
) -> TrainingOptions:
    quick = QUICK_RUNS[spec.architecture]
    counts = {}
    for name in ("steps", "checkpoint_every", "sample_every"):
        given = getattr(arguments, name)
        counts[name] = getattr(quick, name) if given is None else given
    default_out = Path("runs") / f"{implementation}-{spec.name}-{spec.loss}"
    choose = _latest_name if arguments.resume else _free_name
    options = TrainingOptions(
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
    keep = arguments.keep_checkpoints
    options = replace(options, keep_checkpoints=_kept_before(options) if keep is None else keep)
    return replace(options, config=_config(options, arguments.learning_rate))


def _kept_before(options: TrainingOptions) -> int:
    """Return how many checkpoints the run keeps that is resumed, the default for a new one.

    A --resume without the option must not delete what was to be kept. Runs of versions without
    the option kept all.
    """
    sessions = RunFolder(options.out).sessions() if options.resume else []
    if not sessions:
        return KEEP_CHECKPOINTS
    return sessions[-1]["options"].get("keep_checkpoints", ALL_CHECKPOINTS)


def _config(options: TrainingOptions, learning_rate: float | None) -> str:
    """Return the options as a configuration file; paths are absolute, to hold in any folder."""
    spec = options.spec
    flags = {name: flag for flag, name in GENERATOR_BATCHES.items()}
    values = {
        "system": spec.name,
        "loss": spec.loss,
        "data": None if options.data is None else os.path.abspath(options.data),
        "width": spec.width,
        "batch_size": spec.batch_size,
        "steps": options.steps,
        "learning_rate": learning_rate,  # the default, one for each network, follows from these
        "d_steps": spec.discriminator_steps,
        "generator_batch": flags[spec.generator_batch],
        "seed": options.seed,
        "out": os.path.abspath(options.out),
        "sample_every": options.sample_every,
        "checkpoint_every": options.checkpoint_every,
        "keep_checkpoints": options.keep_checkpoints,
        "tensorboard": options.tensorboard,
        "device": options.device,
        "dtype": options.dtype,
        "devices": options.devices,
        "batch_norm": options.batch_norm,
        "wait_limit": options.wait_limit,
    }
    return config_text(options.implementation, values)


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
