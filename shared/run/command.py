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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from shared.run.config import read_config
from shared.run.console import run_command
from shared.run.failures import OutOfMemoryError, is_out_of_memory
from shared.run.folder import RunFolder
from shared.run.options import (
    ALL_CHECKPOINTS,
    GENERATOR_BATCHES,
    KEEP_CHECKPOINTS,
    OPTIONS,
    QUICK_RUNS,
    TrainingOptions,
    build_parser,
)
from shared.spec import SYSTEMS, SystemSpec

_NOT_IN_CONFIG = ("full", "resume", "config", "debug")  # of the command, and not of the run


def run_training(
    implementation: str,
    train: Callable[[TrainingOptions], object],
    argv: Sequence[str] | None = None,
) -> int:
    """Run the command line of one implementation and return its exit code.

    `train` does the work. Beside what `run_command` catches, memory that runs out becomes one
    line and exit code 2.
    """
    program = f"python -m {implementation}_impl.train"

    def start() -> int:
        arguments = _parse(implementation, argv)
        return run_command(program, lambda: work(vars(arguments)), debug=arguments.debug)

    def work(given: Mapping[str, Any]) -> None:
        options = training_options(implementation, given)
        try:
            train(options)
        except Exception as error:
            if is_out_of_memory(error):
                raise OutOfMemoryError(error, options.spec) from error
            raise

    return run_command(program, start)


def _parse(implementation: str, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser(implementation)
    arguments = parser.parse_args(argv)
    if arguments.config is None:
        return arguments
    return parser.parse_args(argv, read_config(arguments.config, implementation))


def training_options(implementation: str, given: Mapping[str, Any]) -> TrainingOptions:
    """Return the options of a parsed command line; what it leaves open (None) is filled in."""
    system = SYSTEMS[given["system"]]
    quick = QUICK_RUNS[system.architecture]
    sizes = system if given["full"] else quick
    values = {
        "loss": system.loss,
        "width": sizes.width,
        "batch_size": sizes.batch_size,
        "d_steps": system.discriminator_steps,
        "generator_batch": system.generator_batch.replace("_", "-"),
        "steps": quick.steps,
        "sample_every": quick.sample_every,
        "checkpoint_every": quick.checkpoint_every,
        **{name: value for name, value in given.items() if value is not None},
    }
    if values["d_steps"] < 1:
        raise ValueError(f"--d-steps must be at least 1, received {values['d_steps']}")
    spec = system.replace(
        **{name: values[name] for name in ("loss", "width", "batch_size")},
        discriminator_steps=values["d_steps"],
        generator_batch=GENERATOR_BATCHES[values["generator_batch"]],
    )
    spec = spec.replace(**_optimizers(system, spec.width, given["learning_rate"]))
    if "out" not in values:
        name = f"{implementation}-{spec.name}-{spec.loss}"
        values["out"] = _default_out(Path("runs") / name, given["resume"])
    if "keep_checkpoints" not in values:
        values["keep_checkpoints"] = _checkpoints_to_keep(values["out"], given["resume"])
    config = {
        option.name: os.path.abspath(value) if option.type is Path else value
        for group in OPTIONS.values()
        for option in group
        if option.name not in _NOT_IN_CONFIG
        and (value := values.get(option.name.replace("-", "_"))) is not None
    }
    values |= {"implementation": implementation, "spec": spec, "config": config}
    filled: dict[str, Any] = {f.name: values.get(f.name) for f in fields(TrainingOptions)}
    return TrainingOptions(**filled)


def _checkpoints_to_keep(out: Path, resume: bool) -> int:
    """Return how many checkpoints the run keeps that is resumed, the default for a new one.

    A --resume without the option must not delete what was to be kept. Runs of versions without
    the option kept all.
    """
    sessions = RunFolder(out).sessions() if resume else []
    if not sessions:
        return KEEP_CHECKPOINTS
    return sessions[-1]["options"].get("keep_checkpoints", ALL_CHECKPOINTS)


def _optimizers(system: SystemSpec, width: int, learning_rate: float | None) -> dict[str, Any]:
    """Return both optimizers with the rate that was asked for, or theirs scaled to the width.

    Unscaled, a generator of width 16 needs 600 steps before it can paint a black background, and
    its discriminator has won by then.
    """
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise ValueError(f"--learning-rate must be positive and finite, received {learning_rate}")
    adams = {name: adam for name, adam in vars(system).items() if name.endswith("_optimizer")}
    rates = {
        name: learning_rate or adam.learning_rate * system.width / width
        for name, adam in adams.items()
    }
    return {name: replace(adam, learning_rate=rates[name]) for name, adam in adams.items()}


def _default_out(folder: Path, resume: bool) -> Path:
    """Return the latest of folder, folder-2 ... to resume, or the first of them that is free."""
    if not resume:
        others = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
        return next(path for path in itertools.chain([folder], others) if not path.exists())
    numbered = re.compile(re.escape(folder.name) + r"(?:-(\d+))?")
    found = {
        int(match[1] or 1): path
        for path in folder.parent.glob("*")
        if (match := numbered.fullmatch(path.name))
    }
    return found[max(found)] if found else folder
