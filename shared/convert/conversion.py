"""The steps between reading files and writing one: join, choose, start fresh, leave behind.

Each returns new contents and prints a line for everything that it makes up or leaves out.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from shared.files.checkpoint import CheckpointError, spec_differences
from shared.files.errors import InputError
from shared.formats.file_kinds import FileKind
from shared.formats.native_contents import (
    EVERYTHING,
    OPTIMIZERS,
    PROGRESS,
    NativeContents,
    check_contents,
    part_shapes,
)
from shared.spec import SYSTEMS


def with_choices(contents: NativeContents, system: str | None, loss: str | None) -> NativeContents:
    """Return the contents with --system and --loss; a stored spec must be the same."""
    spec = contents.spec
    if system and system != spec.name:
        chosen = SYSTEMS[system]
        if chosen.architecture != spec.architecture:
            raise CheckpointError(
                f"SRC holds networks of {spec.architecture}, --system {system} asks for those of "
                f"{chosen.architecture}"
            )
        spec = spec.replace(
            name=chosen.name, loss=chosen.loss, discriminator_head=chosen.discriminator_head
        )
    spec = spec.replace(loss=loss or spec.loss)
    if contents.spec_is_stored and (differences := spec_differences(contents.spec, spec)):
        raise CheckpointError(
            f"SRC stores another spec than --system and --loss: {'; '.join(differences)}"
        )
    chosen_contents = replace(contents, spec=spec)
    check_contents(Path("SRC as --system"), chosen_contents)
    return chosen_contents


def with_fresh(contents: NativeContents, fresh: bool, seed: int | None) -> NativeContents:
    """Return the contents with zero Adams and a new progress, where the options ask for them."""
    if not fresh and seed is None:
        return contents
    if fresh:
        contents = _with_zero_optimizers(contents)
    elif contents.progress is not None:
        raise InputError("--seed: SRC has its own progress; leave it out")
    steps = [contents.arrays[f"{p}/step"] for p in OPTIMIZERS if p in contents.parts]
    if len(steps) != 2 or steps[0] != steps[1]:
        raise InputError(
            "--seed: the step of the run is that of both Adams, and SRC holds "
            f"{', '.join(map(str, steps)) or 'none'}"
        )
    progress = {
        "step": int(steps[0]),
        "seed": seed or 0,
        "dtype": contents.dtype,
        "implementation": "shared.convert",
    }
    print(f"progress: step {progress['step']}, seed {progress['seed']}")
    return replace(contents, progress=progress)


def _with_zero_optimizers(contents: NativeContents) -> NativeContents:
    if held := [part for part in OPTIMIZERS if part in contents.parts]:
        raise InputError(f"--fresh-optimizers: SRC has its own {', '.join(held)}; leave it out")
    if len(contents.networks) != 2:
        raise InputError("--fresh-optimizers: expected both networks; join a second SRC")
    if contents.progress is not None:
        print(f"left behind: progress (step {contents.progress['step']}), to start at step 0")
    # A counter is the one array without axes.
    zeros = {
        name: np.zeros(shape, contents.dtype if shape else np.int64)
        for name, shape in part_shapes(contents.spec, OPTIMIZERS).items()
    }
    print(f"started at zero: {', '.join(OPTIMIZERS)}")
    return replace(contents, arrays=contents.arrays | zeros, progress=None)


def fitted(contents: NativeContents, kind: FileKind, only: str | None) -> NativeContents:
    """Return what the kind can carry, and print what it cannot; what it needs must be there."""
    carried = (only,) if only else kind.carried
    reason = f"--only {only}" if only else f"{kind.name} has no place for it"
    if left := [name for name in describe(contents) if name.split(" ")[0] not in carried]:
        print(f"left behind: {', '.join(left)} ({reason})")
    arrays = {n: a for n, a in contents.arrays.items() if n.split("/", 1)[0] in carried}
    progress = contents.progress if PROGRESS in carried else None
    kept = replace(contents, arrays=arrays, progress=progress)
    missing = [name for name in EVERYTHING if name not in kept.held]
    if kind.needs_everything and missing:
        raise CheckpointError(
            f"a {kind.name} file needs {', '.join(missing)} too; join a second SRC that has a "
            "missing network, start the optimizers at zero with --fresh-optimizers, or name the "
            "run's --seed where only progress is missing"
        )
    if not arrays:
        raise CheckpointError(f"SRC holds nothing of it to write: {', '.join(contents.parts)}")
    return kept


def describe(contents: NativeContents) -> list[str]:
    """Return what there is, of EVERYTHING, with the step of the progress."""
    progress = contents.progress
    return [*contents.parts, *([f"{PROGRESS} (step {progress['step']})"] if progress else [])]
