"""The steps between reading files and writing one: choose, start fresh, leave behind; then verify.

Each prints a line for everything that it makes up, leaves out or finds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from shared.files.checkpoint import CheckpointError, spec_differences
from shared.files.errors import InputError
from shared.formats import native_contents as native
from shared.formats.file_kinds import FileKind, kind_of
from shared.formats.native_contents import OPTIMIZERS, PROGRESS, NativeContents
from shared.interface import Array
from shared.spec import SystemSpec
from shared.spec.streams import latents, stream


def with_choices(
    contents: NativeContents, chosen: SystemSpec | None, loss: str | None
) -> NativeContents:
    """Return the contents with --system and --loss; a stored spec must be the same."""
    spec = contents.spec
    if chosen and chosen.name != spec.name:
        if chosen.architecture != spec.architecture:
            raise CheckpointError(
                f"SRC holds networks of {spec.architecture}, --system {chosen.name} asks for those "
                f"of {chosen.architecture}"
            )
        spec = spec.replace(
            name=chosen.name, loss=chosen.loss, discriminator_head=chosen.discriminator_head
        )
    spec = spec.replace(loss=loss or spec.loss)
    if contents.spec_is_stored and (differences := spec_differences(contents.spec, spec)):
        raise CheckpointError(
            f"SRC stores another spec than --system and --loss: {'; '.join(differences)}"
        )
    contents = replace(contents, spec=spec)
    native.check_contents(Path("SRC as --system"), contents)
    return contents


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
        for name, shape in native.part_shapes(contents.spec, OPTIMIZERS).items()
    }
    print(f"started at zero: {', '.join(OPTIMIZERS)}")
    return replace(contents, arrays=contents.arrays | zeros, progress=None)


def fitted(contents: NativeContents, kind: FileKind, only: str | None) -> NativeContents:
    """Return what the kind can carry, and print what it cannot; what it needs must be there."""
    if kind.needs_everything and contents.spec.architecture == "custom":
        raise InputError("a system of a file has no checkpoints: write a file of a framework")
    carried = (only,) if only else kind.carried
    reason = f"--only {only}" if only else f"{kind.name} has no place for it"
    if left := [name for name in describe(contents) if name.split(" ")[0] not in carried]:
        print(f"left behind: {', '.join(left)} ({reason})")
    arrays = {n: a for n, a in contents.arrays.items() if n.split("/", 1)[0] in carried}
    progress = contents.progress if PROGRESS in carried else None
    kept = replace(contents, arrays=arrays, progress=progress)
    missing = [name for name in native.EVERYTHING if name not in kept.held]
    if kind.needs_everything and missing and not only:
        raise CheckpointError(
            f"a {kind.name} file needs {', '.join(missing)} too; join a second SRC that has a "
            "missing network, start the optimizers at zero with --fresh-optimizers, name the run's "
            "--seed where only progress is missing, or write one network alone with --only"
        )
    if not arrays:
        raise CheckpointError(f"SRC holds nothing of it to write: {', '.join(contents.parts)}")
    return kept


def describe(contents: NativeContents) -> list[str]:
    """Return what there is, of EVERYTHING, with the step of the progress."""
    progress = contents.progress
    return [*contents.parts] + ([f"{PROGRESS} (step {progress['step']})"] if progress else [])


# --- verification: do two files hold the same networks, bit by bit and in what they compute? ------

GRID_SIZE = 16

# Of the largest value. Two frameworks' rounding: measured 6e-7 and 2e-15 (test_convert.py).
# A kernel stored in a wrong order: measured 1.4 (turned) and 5 (dense, HWC for CHW).
NETWORK_BOUND = {"float32": 1e-4, "float64": 1e-11}


def verify(
    sources: Mapping[Path, NativeContents], contents: NativeContents, kind: FileKind, path: Path
) -> Iterator[str]:
    """Read a file back, run its networks beside those of the sources, and yield both results."""
    written = kind.read(path)
    meant, read = _bits(contents.arrays), _bits(written.arrays)
    if changed := sorted(n for n in meant.keys() | read.keys() if meant.get(n) != read.get(n)):
        raise InputError(f"arrays that changed on the way: {', '.join(changed)}")
    if written.progress != contents.progress:
        raise InputError(f"the progress changed on the way: {written.progress}")
    yield f"arrays: {len(written.arrays)} written and read back, every bit the same"
    if lost := spec_differences(written.spec, contents.spec):
        fields = ", ".join(difference.split(":")[0] for difference in lost)
        yield f"left behind: of the spec {fields} (a network alone keeps what its shapes show)"
    if contents.spec.architecture == "custom":
        yield "networks: not run, because they are yours; hold the port against shared.explain"
        return
    inputs = verification_inputs(contents)
    outputs = kind.run(path, contents, *inputs)
    for source, held in sources.items():
        other = kind_of(source)
        expected = other.run(source, replace(held, spec=contents.spec), *inputs)
        for network in (name for name in held.networks if name in outputs):
            difference, largest = require_same_outputs(
                network, expected[network], outputs[network], contents.dtype
            )
            yield (
                f"{network}: max difference {difference:.2e} of values up to {largest:.2e} "
                f"({other.name} beside {kind.name}, {GRID_SIZE} inputs)"
            )


def verification_inputs(contents: NativeContents) -> tuple[Array, Array]:
    """Return 16 latents and 16 NHWC images to compare networks on, in the contents' dtype."""
    spec = contents.spec
    drawn = latents(spec, 0, 0, GRID_SIZE, purpose="sample_grid")
    shape = (GRID_SIZE, *spec.image_shape)
    images = stream(0, "verification_images").uniform(*spec.image_range, shape)
    return drawn.astype(contents.dtype), images.astype(contents.dtype)


def require_same_outputs(
    network: str, source: Array, destination: Array, dtype: str
) -> tuple[float, float]:
    """Return the largest difference, at most NETWORK_BOUND of the largest output, and that."""
    finite = np.isfinite(source)
    same = source.shape == destination.shape and np.array_equal(
        source[~finite], destination[~finite], equal_nan=True
    )
    if not same or not np.isfinite(destination[finite]).all():
        raise InputError(f"the {network}s of SRC and DST differ in shape or in NaN")
    difference = float(np.max(np.abs(source[finite] - destination[finite]), initial=0.0))
    largest = float(np.max(np.abs(source[finite]), initial=0.0))
    if difference > NETWORK_BOUND[dtype] * largest:
        raise InputError(
            f"the {network}s of SRC and DST differ by up to {difference:.2e} of {largest:.2e}; "
            f"expected at most {NETWORK_BOUND[dtype]:.0e} of it"
        )
    return difference, largest


def _bits(arrays: Mapping[str, Array]) -> dict[str, object]:
    return {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}
