"""The steps between reading files and writing one: choose, leave behind; then verify.

Each prints a line for everything that it leaves out or finds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from shared.files.checkpoint import PROGRESS, CheckpointError, Contents, spec_differences
from shared.files.errors import InputError
from shared.formats.file_kinds import FileKind, kind_of
from shared.interface import Array, Arrays
from shared.spec import SystemSpec
from shared.spec.state_arrays import cast_floats
from shared.spec.streams import latents, stream


def with_choices(contents: Contents, chosen: SystemSpec | None, loss: str | None) -> Contents:
    """Return the contents with --system and --loss; a stored spec must be the same."""
    spec = contents.spec
    if chosen:
        fields = "name", "loss", "discriminator_head"
        spec = spec.replace(**{field: getattr(chosen, field) for field in fields})
    spec = spec.replace(loss=loss or spec.loss)
    if contents.spec_is_stored and (differences := spec_differences(contents.spec, spec)):
        raise CheckpointError(
            f"SRC stores another spec than --system and --loss: {'; '.join(differences)}"
        )
    return replace(contents, spec=spec)


def fitted(contents: Contents, kind: FileKind, only: str | None) -> Contents:
    """Return what the kind can carry, and print what it cannot."""
    if kind.implementation is None and contents.spec.architecture == "custom":
        raise InputError("a system of a file has no checkpoints: write a file of a framework")
    carried = (only,) if only else kind.carried
    reason = f"--only {only}" if only else f"{kind.name} has no place for it"
    if left := [name for name in describe(contents) if name.split(" ")[0] not in carried]:
        print(f"left behind: {', '.join(left)} ({reason})")
    arrays = {n: a for n, a in contents.arrays.items() if n.split("/", 1)[0] in carried}
    progress = contents.progress if PROGRESS in carried else {}
    if not arrays:
        raise CheckpointError(f"SRC holds nothing of it to write: {', '.join(contents.parts)}")
    return replace(contents, arrays=arrays, progress=progress)


def describe(contents: Contents) -> list[str]:
    """Return what there is, of EVERYTHING, with the step of the progress."""
    progress = contents.progress
    return [*contents.parts] + ([f"{PROGRESS} (step {progress['step']})"] if progress else [])


# --- verification: do two files hold the same networks, bit by bit and in what they compute? ------

GRID_SIZE = 16

# Of the largest value. Two frameworks' rounding: measured 6e-7 and 2e-15 (test_convert.py).
# A kernel stored in a wrong order: measured 1.4 (turned) and 5 (dense, HWC for CHW).
NETWORK_BOUND = {"float32": 1e-4, "float64": 1e-11}


def verify(
    sources: Mapping[Path, Contents], contents: Contents, kind: FileKind, path: Path
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
    outputs = kind.run(path, contents, inputs)
    for source, held in sources.items():
        other = kind_of(source)
        expected = other.run(source, replace(held, spec=contents.spec), inputs)
        for network in (name for name in held.networks if name in outputs):
            difference, largest = require_same_outputs(
                network, expected[network], outputs[network], contents.dtype
            )
            yield (
                f"{network}: max difference {difference:.2e} of values up to {largest:.2e} "
                f"({other.name} beside {kind.name}, {GRID_SIZE} inputs)"
            )


def verification_inputs(contents: Contents) -> Arrays:
    """Return 16 latents and 16 NHWC images to compare networks on, in the contents' dtype."""
    spec = contents.spec
    drawn = latents(spec, 0, 0, GRID_SIZE, purpose="sample_grid")
    shape = (GRID_SIZE, *spec.image_shape)
    images = stream(0, "verification_images").uniform(*spec.image_range, shape)
    return cast_floats({"generator": drawn, "discriminator": images}, contents.dtype)


def require_same_outputs(
    network: str, source: Array, destination: Array, dtype: str
) -> tuple[float, float]:
    """Return the largest difference, at most NETWORK_BOUND of the largest output, and that."""
    finite = np.isfinite(source)
    difference = float(np.max(np.abs(source - destination)[finite], initial=0.0))
    largest = float(np.max(np.abs(source[finite]), initial=0.0))
    most = NETWORK_BOUND[dtype] * largest
    if not np.allclose(destination, source, rtol=0.0, atol=most, equal_nan=True):
        raise InputError(
            f"the {network}s of SRC and DST differ by up to {difference:.2e} of {largest:.2e}; "
            f"expected at most {NETWORK_BOUND[dtype]:.0e} of it, and NaN in the same places"
        )
    return difference, largest


def _bits(arrays: Mapping[str, Array]) -> dict[str, object]:
    return {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}
