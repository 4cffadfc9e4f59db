"""The steps between reading files and writing one: join, choose, start fresh, leave behind.

Each returns new contents and prints a line for everything that it makes up or leaves out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from shared.convert.file_kinds import FileKind, load_format
from shared.convert.native_contents import (
    OPTIMIZERS,
    PARTS,
    PROGRESS,
    NativeContents,
    check_contents,
    infer_spec,
    part_shapes,
)
from shared.files.checkpoint import CheckpointError, spec_differences
from shared.spec import SYSTEMS, SystemSpec, state_shapes


def joined(sources: dict[Path, NativeContents]) -> NativeContents:
    """Return the contents of all sources as one; they must not overlap or disagree."""
    first, *others = sources.values()
    if not others:
        return first
    names = [part for contents in sources.values() for part in contents.parts]
    if twice := sorted({part for part in names if names.count(part) > 1}):
        raise CheckpointError(f"more than one SRC holds {', '.join(twice)}")
    arrays = {name: a for contents in sources.values() for name, a in contents.arrays.items()}
    stored = [contents for contents in sources.values() if contents.spec_is_stored]
    spec = stored[0].spec if stored else _inferred(sources, arrays)
    progress = [c.progress for c in sources.values() if c.progress is not None]
    path = Path(" and ".join(map(str, sources)))
    for contents in stored[1:]:
        if contents.spec != spec:
            differences = "; ".join(spec_differences(contents.spec, spec))
            raise CheckpointError(f"{path} belong to other systems: {differences}")
    if len(progress) > 1:
        raise CheckpointError(f"{path}: each has a progress of its own")
    joined = NativeContents(arrays, spec, progress[0] if progress else None, bool(stored))
    check_contents(path, joined, (*PARTS, PROGRESS))
    return joined


def _inferred(sources: dict[Path, NativeContents], arrays: dict[str, np.ndarray]) -> SystemSpec:
    def canonical(spec: SystemSpec) -> dict[str, str]:
        return {name: name for name in state_shapes(spec)}

    spec = infer_spec({name: array.shape for name, array in arrays.items()}, canonical)
    for contents in sources.values():
        held = [part for part in OPTIMIZERS if part in contents.parts]
        spec = spec.replace(**{part: getattr(contents.spec, part) for part in held})
    return spec


def with_choices(contents: NativeContents, system: str | None, loss: str | None) -> NativeContents:
    """Return the contents with --system and --loss; a stored spec must say the same."""
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
    if contents.spec_is_stored and spec != contents.spec:
        differences = "; ".join(spec_differences(contents.spec, spec))
        raise CheckpointError(f"SRC stores another spec than --system and --loss: {differences}")
    chosen_contents = replace(contents, spec=spec)
    check_contents(Path("SRC as --system"), chosen_contents, (*PARTS, PROGRESS))
    return chosen_contents


def with_fresh(contents: NativeContents, fresh: bool, seed: int | None) -> NativeContents:
    """Return the contents with zero Adams and a new progress, where the options ask for them."""
    if not fresh and seed is None:
        return contents
    if fresh:
        contents = _with_zero_optimizers(contents)
    elif contents.progress is not None:
        raise ValueError("--seed: SRC has its own progress; leave it out")
    steps = [contents.arrays[f"{p}/step"] for p in OPTIMIZERS if f"{p}/step" in contents.arrays]
    if len(steps) != 2 or steps[0] != steps[1]:
        raise ValueError(
            "--seed: the step of the run is that of both Adams, and SRC says "
            f"{', '.join(map(str, steps)) or 'none'}"
        )
    progress = {
        "step": int(steps[0]),
        "seed": seed or 0,
        "dtype": contents.dtype,
        "implementation": "shared.convert.command",
    }
    print(f"progress: step {progress['step']}, seed {progress['seed']}")
    return replace(contents, progress=progress)


def _with_zero_optimizers(contents: NativeContents) -> NativeContents:
    if held := [part for part in OPTIMIZERS if part in contents.parts]:
        raise ValueError(f"--fresh-optimizers: SRC has its own {', '.join(held)}; leave it out")
    if len(contents.networks) != 2:
        raise ValueError("--fresh-optimizers: expected both networks; join a second SRC")
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
    """Return what the kind can carry, and say what it cannot; what it needs must be there."""
    carried = (only,) if only else load_format(kind).carried
    reason = f"--only {only}" if only else f"{kind.name} has no place for it"
    left = [part for part in contents.parts if part not in carried]
    if contents.progress is not None and PROGRESS not in carried:
        left.append(f"progress (step {contents.progress['step']})")
    if left:
        print(f"left behind: {', '.join(left)} ({reason})")
    arrays = {n: a for n, a in contents.arrays.items() if n.split("/", 1)[0] in carried}
    progress = contents.progress if PROGRESS in carried else None
    fitted = replace(contents, arrays=arrays, progress=progress)
    held = [*fitted.parts, *([PROGRESS] if progress is not None else [])]
    missing = [part for part in (*PARTS, PROGRESS) if part not in held]
    if kind.needs_everything and missing:
        raise CheckpointError(
            f"a {kind.name} file needs {', '.join(missing)} too; join a second SRC that has a "
            "missing network, start the optimizers at zero with --fresh-optimizers, or name the "
            "run's --seed where only progress is missing"
        )
    if not arrays:
        raise CheckpointError(f"SRC holds nothing of it to write: {', '.join(contents.parts)}")
    return fitted
