"""`.safetensors`, with every native_format's functions, by the NumPy reference: no framework."""

from functools import partial
from pathlib import Path

import numpy as np

from shared.files.checkpoint import CHECKPOINT, encode_description
from shared.formats.native_contents import Contents, assemble, canonical_names
from shared.interface import Arrays
from shared.reference.network import forward
from shared.spec import Conventions
from shared.spec.state_arrays import cast_floats

load = CHECKPOINT.read  # every array by its name, and the texts beside them


def write_native(path: Path, contents: Contents) -> None:
    """Write contents that fit: `FileKind.write`."""
    CHECKPOINT.write(path, contents.arrays, encode_description(contents.spec, contents.progress))


def read_native(path: Path) -> Contents:
    """Read a training state or a part of it, and check it: `FileKind.read`."""
    return assemble(path, *load(path), canonical_names)


def run_native(path: Path, contents: Contents, inputs: Arrays) -> Arrays:
    """Run a file's networks in the NumPy reference, in float64: `FileKind.run`."""
    arrays = cast_floats(read_native(path).arrays, np.float64)
    run = partial(forward, contents.spec, conventions=Conventions(), training=False)
    return {n: run(n, arrays=arrays, x=inputs[n]).output for n in contents.networks}
