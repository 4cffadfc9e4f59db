"""Flax' own format: a folder that orbax.checkpoint.StandardCheckpointer writes and restores.

A tree of "generator" and "discriminator" (each what nnx.update takes), and of
"generator_optimizer" and "discriminator_optimizer" (the fields of optax.ScaleByAdamState: count,
mu and nu). One network alone is its bare tree. The spec and the progress are JSON text in the
checkpoint's custom metadata.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from jax_impl.native_networks import native_names, without_value
from shared.convert.native_contents import NativeContents, assemble, check_contents
from shared.data.images import GIBIBYTE, MAXIMUM_BYTES
from shared.files.atomic import staged
from shared.files.checkpoint import CheckpointError, encode_description

__all__ = ["read_native", "write_native"]


def write_native(path: str | os.PathLike[str], contents: NativeContents) -> None:
    """Write a file that this framework's users can load; it is complete or not there at all.

    Raises CheckpointError, before anything is written, for contents that do not fit.
    """
    # orbax takes absolute paths only.
    path = Path(path).absolute()
    check_contents(path, contents)
    arrays = {
        tuple(native.split("/")): np.array(contents.arrays[name], order="C")
        for native, name in native_names(contents.spec).items()
        if name in contents.arrays
    }
    tree = traverse_util.unflatten_dict(arrays)
    if contents.is_one_network:
        (tree,) = tree.values()
    description = encode_description(contents.spec, contents.progress)
    with staged(path) as temporary, ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(temporary, tree, custom_metadata=description)
        checkpointer.wait_until_finished()


def read_native(path: str | os.PathLike[str]) -> NativeContents:
    """Read a file of this framework and check all of it but the values.

    Raises CheckpointError, naming the file, for a missing, damaged or foreign one, and as
    `assemble` for contents that do not fit.
    """
    path = Path(path).absolute()
    found, metadata = _load(path)
    # Flax' layouts are the canonical ones: HWIO, HWOI (as layers.py keeps it) and (in, out).
    return assemble(path, found, metadata, native_names)


# --- reading ---------------------------------------------------------------------------------


def _load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return every array by its path through the tree, and the custom metadata."""
    if not path.is_dir():
        raise CheckpointError(
            f"{path}: expected a folder of orbax, found {'a file' if path.is_file() else 'nothing'}"
        )
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(path)
            if metadata.item_metadata is None:
                raise CheckpointError(f"{path}: expected a complete checkpoint of orbax")
            # Asked for as NumPy's, because JAX without x64 would round float64.
            tree = metadata.item_metadata.tree
            _require_memory(path, jax.tree.leaves(tree))
            target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)
            restored = without_value(checkpointer.restore(path, target))
            leaves = jax.tree_util.tree_leaves_with_path(restored)
            named = {"/".join(str(getattr(k, "key", k)) for k in keys): a for keys, a in leaves}
            found = {name: _widened(name, np.array(array)) for name, array in named.items()}
            return found, dict(metadata.custom_metadata or {})
    except CheckpointError:
        raise
    # orbax and tensorstore raise ValueError, KeyError, AssertionError, ... as the damage has it.
    except Exception as error:
        raise CheckpointError(
            f"{path}: expected a complete checkpoint of orbax ({error})"
        ) from error


def _require_memory(path: Path, leaves: list[Any]) -> None:
    """Raise CheckpointError for more bytes than any state has: metadata may declare anything."""
    declared = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
    if declared > MAXIMUM_BYTES:
        raise CheckpointError(
            f"{path}: declares arrays of {declared / GIBIBYTE:.1f} GiB; expected at most "
            f"{MAXIMUM_BYTES / GIBIBYTE:.0f} GiB"
        )


def _widened(name: str, array: np.ndarray) -> np.ndarray:
    """Return optax' counter, an int32, as int64."""
    is_counter = name.endswith("_optimizer/count") and array.dtype == np.int32
    return array.astype(np.int64) if is_counter else array
