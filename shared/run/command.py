"""The command `python -m {pytorch_impl,tf_impl,jax_impl}.train`: from its arguments to its options.

What is not given is such that training takes less than two minutes on two CPU cores.
"""

import itertools
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from shared.files.errors import InputError, refused_as
from shared.formats.native_contents import OPTIMIZERS
from shared.run import options as table
from shared.run.console import is_out_of_memory, run_command
from shared.run.folder import RunFolder, newest_first
from shared.run.options import InitialWeights, TrainingOptions, build_parser
from shared.spec import SYSTEMS

_BY_NAME = {option.name: option for group in table.OPTIONS.values() for option in group}
_NOT_IN_CONFIG = ("full", "resume", "config", "debug")  # of the command, and not of the run


def run_training(
    implementation: str,
    train: Callable[[TrainingOptions], object],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a command line whose work `train` does; exit code 2 also where memory runs out."""
    parser = build_parser(implementation)

    def start() -> int:
        typed = list(sys.argv[1:] if argv is None else argv)
        arguments = parser.parse_args(typed)
        if arguments.config is not None:
            typed = [*_read_config(arguments.config, implementation), *typed]
            arguments = parser.parse_args(typed)
        if arguments.resume:
            out = _run_folder(implementation, vars(arguments))
            if (config := RunFolder(out).config).is_file():
                # It names the folder in which the run began, which may have been moved since.
                typed = [*_read_config(config, implementation), *typed, f"--out={out}"]
                arguments = parser.parse_args(typed)
        return run_command(parser.prog, lambda: work(vars(arguments)), debug=arguments.debug)

    def work(given: Mapping[str, Any]) -> None:
        options = _training_options(implementation, given)
        try:
            train(options)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            quote = str(error)[:200] or type(error).__name__  # some frameworks print pages
            sizes = f"--batch-size {options.spec.batch_size} and --width {options.spec.width}"
            advice = f"try a smaller --batch-size or --width ({quote})"
            raise InputError(f"out of memory with {sizes}; {advice}") from error

    return run_command(parser.prog, start)


def _read_config(path: Path, implementation: str) -> list[str]:
    """Return a file's options, whose keys may have dashes or _, as arguments; or InputError."""
    advice = 'write lines such as batch-size = 16 or loss = "bce"'
    with refused_as(path, "TOML", advice):
        read = tomllib.loads(path.read_bytes().decode("utf-8-sig", "surrogateescape"))
    parser = build_parser(implementation)
    parser.source = f"{path}: "
    arguments = []
    for key, value in read.items():
        flag = key.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            arguments += [f"--{flag}", *map(_typed, value)]
        else:
            arguments.append(f"--{flag}={_typed(value)}")
    if parser.parse_args(arguments).config:
        parser.error("it names another file with config; put that one's options into it")
    return arguments


def _typed(value: object) -> str:
    """Return a value, which may be a path, as the command line has it: in the locale's bytes."""
    return os.fsdecode(str(value).encode("utf-8", "surrogateescape"))


def _training_options(implementation: str, given: Mapping[str, Any]) -> TrainingOptions:
    """Return the options of a parsed command line; what it leaves open (None) is filled in."""
    initial, known = None, dict[str, Any]()
    if given["init_from"]:
        folder = RunFolder(_run_folder(implementation, given))
        if given["resume"] and newest_first(folder.checkpoints):
            known = folder.read_description()[0]
        else:
            initial = InitialWeights.read(given["init_from"])
            known = initial.options(given["system"])
    given = {**given, **{n: v for n, v in known.items() if n in given and given[n] is None}}
    system = SYSTEMS[given["system"] or table.DEFAULT_SYSTEM]
    quick = table.QUICK_RUNS[system.architecture]
    sizes = system if given["full"] else quick
    values = {
        "data": None,
        "mode": None,
        "latent_dim": known.get("latent_dim"),  # None: the system's own
        **quick._asdict(),
        "loss": system.loss,
        "width": sizes.width,
        "batch_size": sizes.batch_size,
        "d_steps": system.discriminator_steps,
        "generator_batch": system.generator_batch.replace("_", "-"),
        **{name: value for name, value in given.items() if value is not None},
    }
    spec = table.respecified(system, values)
    if initial:
        initial.require_fit(spec)
    if given["learning_rate"] is None:
        # Unscaled, a generator of width 16 needs 600 steps before it can make a black background,
        # and its discriminator has won by then.
        own = {name: getattr(system, name) for name in OPTIMIZERS}
        rates = {n: adam.learning_rate * system.width / spec.width for n, adam in own.items()}
        spec = spec.replace(**{n: replace(own[n], learning_rate=r) for n, r in rates.items()})
    values |= {"system": spec.name, "out": _run_folder(implementation, given)}
    # Where no config.toml says what the resumed run was to keep, nothing of it is deleted.
    keep = table.ALL_CHECKPOINTS if given["resume"] else table.KEEP_CHECKPOINTS
    values.setdefault("keep_checkpoints", keep)
    config = {
        name: _absolute(value) if option.type is Path else value
        for name, option in _BY_NAME.items()
        if name not in _NOT_IN_CONFIG and (value := values.get(name.replace("-", "_"))) is not None
    }
    values |= {"implementation": implementation, "spec": spec, "config": config, "initial": initial}
    return TrainingOptions(**{f.name: values[f.name] for f in fields(TrainingOptions)})


def _absolute(value: Path | Sequence[Path]) -> str | list[str]:
    return os.path.abspath(value) if isinstance(value, Path) else [*map(os.path.abspath, value)]


def _run_folder(implementation: str, given: Mapping[str, Any]) -> Path:
    """Return --out, or the latest of the default's folder, folder-2 ..., or the first free one."""
    if given["out"]:
        return given["out"]
    system = given["system"] or table.DEFAULT_SYSTEM
    name = f"{implementation}-{system}-{given['loss'] or SYSTEMS[system].loss}"
    found = (re.fullmatch(rf"{name}(?:-(\d+))?", path.name) for path in Path("runs").glob("*"))
    numbers = {int(match[1] or 1) for match in found if match}
    free = next(n for n in itertools.count(1) if n not in numbers)
    number = max(numbers, default=1) if given["resume"] else free
    return Path("runs", name if number == 1 else f"{name}-{number}")
