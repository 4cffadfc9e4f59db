"""`.safetensors`, with every native_format's functions, by the NumPy reference: no framework."""

from functools import partial
from pathlib import Path

import numpy as np

from shared.files import checkpoint as stored
from shared.formats.native_contents import NativeContents, assemble
from shared.interface import Arrays
from shared.reference.network import forward
from shared.spec import Conventions, state_shapes
from shared.spec.state_arrays import cast_floats

load = stored.CHECKPOINT.read  # every array by its name, and the texts beside them


def write_native(path: Path, contents: NativeContents) -> None:
    """Write a whole training state, or one network without progress: `FileKind.write`."""
    if contents.is_one_network:
        stored.CHECKPOINT.write(
            path, contents.arrays, stored.encode_description(contents.spec, None)
        )
    elif contents.progress is None:
        raise stored.CheckpointError(f"{path}: a checkpoint needs the progress of its run")
    else:
        stored.write_checkpoint(path, contents.arrays, contents.spec, progress=contents.progress)


def read_native(path: Path) -> NativeContents:
    """Read a whole training state or a network, and check it: `FileKind.read`."""
    arrays, texts = load(path)
    if "progress" not in texts:
        return assemble(path, arrays, texts, lambda spec: {n: n for n in state_shapes(spec)})
    checkpoint = stored.read_checkpoint(path)
    return NativeContents(checkpoint.arrays, checkpoint.spec, checkpoint.progress)


def run_native(path: Path, contents: NativeContents, inputs: Arrays) -> Arrays:
    """Run a file's networks in the NumPy reference, in float64: `FileKind.run`."""
    arrays = cast_floats(read_native(path).arrays, np.float64)
    run = partial(forward, contents.spec, conventions=Conventions(), training=False)
    return {n: run(n, arrays=arrays, x=inputs[n]).output for n in contents.networks}
