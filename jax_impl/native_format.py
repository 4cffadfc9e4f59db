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

from jax_impl.native_networks import native_names, without_value
from shared.convert.native_contents import (
    PARTS,
    PROGRESS,
    NativeContents,
    check_contents,
    check_native_arrays,
    closest_network,
    infer_spec,
    part_shapes,
    parts_of,
    split_description,
)
from shared.data.images import GIBIBYTE, MAXIMUM_BYTES
from shared.files.atomic import staged
from shared.files.checkpoint import CheckpointError, encode_description

__all__ = ["CARRIED", "read_native", "write_native"]

CARRIED = (*PARTS, PROGRESS)
"""What this format has a place for."""


def write_native(path: str | os.PathLike[str], contents: NativeContents) -> None:
    """Write a file that this framework's users can load; it is complete or not there at all.

    Raises CheckpointError, before anything is written, for arrays that do not fit the spec and
    for parts that are not in CARRIED.
    """
    # orbax takes absolute paths only.
    path = Path(path).absolute()
    check_contents(path, contents, CARRIED)
    tree: dict[str, Any] = {}
    for native, name in native_names(contents.spec).items():
        if name in contents.arrays:
            *folders, last = native.split("/")
            branch = tree
            for folder in folders:
                branch = branch.setdefault(folder, {})
            branch[last] = np.ascontiguousarray(contents.arrays[name]).reshape(
                contents.arrays[name].shape
            )
    if contents.is_one_network:
        (tree,) = tree.values()
    description = encode_description(contents.spec, contents.progress)
    with staged(path) as temporary, ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(temporary, tree, custom_metadata=description)
        checkpointer.wait_until_finished()


def read_native(path: str | os.PathLike[str]) -> NativeContents:
    """Read a file of this framework and check all of it but the values.

    A spec that is not stored is read off the names and shapes. Raises CheckpointError, naming the
    file, for a missing, damaged or foreign one and for every array too much, missing or misshapen.
    """
    path = Path(path).absolute()
    found, metadata = _load(path)
    stored_spec, progress = split_description(path, metadata)
    if not parts_of(found):
        network = closest_network({n: a.shape for n, a in found.items()}, native_names)
        found = {f"{network}/{name}": array for name, array in found.items()}
    spec = stored_spec or infer_spec({n: a.shape for n, a in found.items()}, native_names)
    # Flax' layouts are the canonical ones: HWIO, HWOI (as layers.py keeps it) and (in, out).
    shapes = part_shapes(spec, parts_of(found))
    names = {name: native for native, name in native_names(spec).items() if name in shapes}
    check_native_arrays(path, found, {native: shapes[name] for name, native in names.items()})
    arrays = {
        name: _counter(found[n]) if n.endswith("/count") else found[n] for name, n in names.items()
    }
    contents = NativeContents(
        {name: arrays[name] for name in shapes}, spec, progress, stored_spec is not None
    )
    check_contents(path, contents, CARRIED)
    return contents


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
            found = {
                "/".join(str(getattr(k, "key", k)) for k in keys): np.array(a) for keys, a in leaves
            }
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


def _counter(count: np.ndarray) -> np.ndarray:
    """Widen optax' int32."""
    return count.astype(np.int64) if count.dtype == np.int32 else count
