"""Whether two files hold the same networks: their arrays bit by bit, and what they compute."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from shared.files.checkpoint import spec_differences
from shared.files.errors import InputError
from shared.formats.file_kinds import FileKind, kind_of
from shared.formats.native_contents import NativeContents
from shared.interface import Array
from shared.spec.streams import latents, stream

GRID_SIZE = 16

# Of the largest value. Two frameworks' rounding: measured 6e-7 and 2e-15 (test_convert.py).
# A kernel stored in a wrong order: measured 1.4 (turned) and 5 (dense, HWC for CHW).
NETWORK_BOUND = {"float32": 1e-4, "float64": 1e-11}


class VerificationError(InputError):
    """A file that was just written does not hold what was to be written."""


def verify(
    sources: Mapping[Path, NativeContents], contents: NativeContents, kind: FileKind, path: Path
) -> None:
    """Read a file back, run its networks beside those of the sources, and print both results."""
    written = kind.read(path)
    _require_same_arrays(contents.arrays, written.arrays)
    if written.progress != contents.progress:
        raise VerificationError(f"the progress changed on the way: {written.progress}")
    print(f"arrays: {len(written.arrays)} written and read back, every bit the same")
    if lost := spec_differences(written.spec, contents.spec):
        fields = ", ".join(difference.split(":")[0] for difference in lost)
        print(f"left behind: of the spec {fields} (a network alone keeps what its shapes show)")
    inputs = verification_inputs(contents)
    outputs = kind.run(path, contents, *inputs)
    for source, held in sources.items():
        other = kind_of(source)
        expected = other.run(source, replace(held, spec=contents.spec), *inputs)
        for network in (name for name in held.networks if name in outputs):
            difference, largest = require_same_outputs(
                network, expected[network], outputs[network], contents.dtype
            )
            print(
                f"{network}: max difference {difference:.2e} of values up to {largest:.2e} "
                f"({other.name} beside {kind.name}, {GRID_SIZE} inputs)"
            )


def verification_inputs(contents: NativeContents) -> tuple[Array, Array]:
    """Return the latents and the images that networks are compared on, the same for every file.

    Latents [16, latent_dim] and images [16, height, width, channels], in the contents' dtype.
    """
    spec = contents.spec
    drawn = latents(spec, 0, 0, GRID_SIZE, purpose="sample_grid")
    images = stream(0, "verification_images").uniform(
        *spec.image_range, (GRID_SIZE, *spec.image_shape)
    )
    return drawn.astype(contents.dtype), images.astype(contents.dtype)


def require_same_outputs(
    network: str, source: Array, destination: Array, dtype: str
) -> tuple[float, float]:
    """Return the largest difference of two networks' outputs, and the largest output.

    Raises VerificationError if the one is more than NETWORK_BOUND of the other. NaN and infinity
    must stand in the same places, as weights that diverged put them there.
    """
    finite = np.isfinite(source)
    same = source.shape == destination.shape and np.array_equal(
        source[~finite], destination[~finite], equal_nan=True
    )
    if not same or not np.isfinite(destination[finite]).all():
        raise VerificationError(f"the {network}s of SRC and DST differ in shape or in NaN")
    difference = float(np.max(np.abs(source[finite] - destination[finite]), initial=0.0))
    largest = float(np.max(np.abs(source[finite]), initial=0.0))
    if difference > NETWORK_BOUND[dtype] * largest:
        raise VerificationError(
            f"the {network}s of SRC and DST differ by up to {difference:.2e} of {largest:.2e}; "
            f"expected at most {NETWORK_BOUND[dtype]:.0e} of it"
        )
    return difference, largest


def _require_same_arrays(meant: Mapping[str, Array], read: Mapping[str, Array]) -> None:
    """Raise VerificationError unless names, dtypes, shapes and every bit are the same."""

    def bits(array: Array | None) -> object:
        return array is not None and (array.dtype, array.shape, array.tobytes())

    names = sorted(meant.keys() | read.keys())
    if changed := [name for name in names if bits(meant.get(name)) != bits(read.get(name))]:
        raise VerificationError(f"arrays that changed on the way: {', '.join(changed)}")
