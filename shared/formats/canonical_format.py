"""`.safetensors` with the same functions as every framework's native_format.

The file is `shared.files.checkpoint`'s, so it holds a whole training state or nothing, and the
networks are the NumPy reference's: the one format that needs no framework.
"""

import os
from pathlib import Path

import numpy as np

from shared.files.checkpoint import CHECKPOINT, CheckpointError, read_checkpoint, write_checkpoint
from shared.formats.native_contents import NativeContents
from shared.interface import Array, Arrays
from shared.reference.network import forward
from shared.spec import Conventions


def write_native(path: str | os.PathLike[str], contents: NativeContents) -> None:
    """Write a whole training state: `FileKind.write`."""
    if contents.progress is None:
        raise CheckpointError(f"{path}: a checkpoint needs the progress of its run")
    write_checkpoint(path, contents.arrays, contents.spec, progress=contents.progress)


def read_native(path: str | os.PathLike[str]) -> NativeContents:
    """Read a whole training state and check it: `FileKind.read`."""
    checkpoint = read_checkpoint(path)
    return NativeContents(checkpoint.arrays, checkpoint.spec, checkpoint.progress)


def list_arrays(path: Path) -> Arrays:
    """Return every array of a file by its name: `FileKind.list_arrays`."""
    return CHECKPOINT.read(path)[1]


def run_native(
    path: str | os.PathLike[str], contents: NativeContents, latents: Array, images: Array
) -> Arrays:
    """Run a file's networks in the NumPy reference, in float64: `FileKind.run`."""
    arrays = {name: array.astype(np.float64) for name, array in read_native(path).arrays.items()}
    inputs = {"generator": latents, "discriminator": images}
    return {
        network: forward(
            contents.spec, network, arrays, inputs[network], Conventions(), training=False
        ).output
        for network in contents.networks
    }
