"""Keras' own file, `.weights.h5`: what `load_weights` of this package's models reads.

Both networks under "generator" and "discriminator", as `native_networks.Networks` saves and loads
them; one network alone as the model itself does. The spec is JSON text in the file's attributes,
which Keras leaves alone. There is no place for this package's Adam, which is no Keras object.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import h5py
import numpy as np

from shared.convert.native_contents import (
    DESCRIPTION_FIELDS,
    NativeContents,
    assemble,
    check_contents,
    require_file,
)
from shared.files.atomic import write_file_atomically
from shared.files.checkpoint import CheckpointError, encode_description
from shared.spec import NETWORKS
from tf_impl.native_networks import native_names

__all__ = ["read_native", "write_native"]

MAXIMUM_ITEMS, MAXIMUM_DEPTH = 10_000, 16
"""Most groups and datasets of a file, and most of them inside one another."""


def write_native(path: str | os.PathLike[str], contents: NativeContents) -> None:
    """Write a file that this framework's users can load; it is complete or not there at all.

    Raises CheckpointError, before anything is written, for contents that do not fit.
    """
    path = Path(path)
    check_contents(path, contents, NETWORKS)
    buffer = io.BytesIO()
    # The layout of Keras' `save_weights`, which could not put the spec beside the weights.
    with h5py.File(buffer, "w") as file:
        file.attrs.update(encode_description(contents.spec, contents.progress))
        for native, name in native_names(contents.spec).items():
            if name in contents.arrays:
                network = native.split("/", 1)[0]
                native = native.removeprefix(f"{network}/" if contents.is_one_network else "")
                file[native] = contents.arrays[name]
    write_file_atomically(path, buffer.getvalue())


def read_native(path: str | os.PathLike[str]) -> NativeContents:
    """Read a file of this framework and check all of it but the values.

    Raises CheckpointError, naming the file, for a missing, damaged or foreign one, and as
    `assemble` for contents that do not fit.
    """
    path = Path(path)
    found, attributes = _load(path)
    # Keras' layouts are the canonical ones: HWIO, HWOI and (in, out).
    return assemble(path, found, attributes, native_names)


# --- reading ---------------------------------------------------------------------------------


def _load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    require_file(path)
    try:
        with h5py.File(path, "r") as file:
            datasets = _datasets(path, file)
            # A few bytes may stand for gigabytes: packed, or never written and only declared.
            declared = sum(item.nbytes for item in datasets.values())
            if declared > path.stat().st_size:
                raise CheckpointError(
                    f"{path}: expected arrays as Keras writes them, unpacked; found "
                    f"{declared:,} bytes declared in a file of {path.stat().st_size:,}"
                )
            attributes = {n: file.attrs[n] for n in DESCRIPTION_FIELDS if n in file.attrs}
            return {name: np.array(item[()]) for name, item in datasets.items()}, attributes
    except CheckpointError:
        raise
    # h5py raises OSError, ValueError, MemoryError, ... as the damage has it.
    except Exception as error:
        raise CheckpointError(f"{path}: expected a complete HDF5 file ({error})") from error


def _datasets(path: Path, file: h5py.File) -> dict[str, h5py.Dataset]:
    """Return every dataset by its path through the groups; numbers that stand in the file itself.

    Not with `visititems`, which takes minutes for three thousand groups inside one another.
    """
    found: dict[str, h5py.Dataset] = {}
    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    seen = 0
    while waiting:
        prefix, group = waiting.pop()
        for own_name in group:
            name, seen = f"{prefix}{own_name}", seen + 1
            if seen > MAXIMUM_ITEMS or name.count("/") > MAXIMUM_DEPTH:
                raise CheckpointError(
                    f"{path}: expected at most {MAXIMUM_ITEMS:,} groups and arrays, "
                    f"{MAXIMUM_DEPTH} inside one another; found more at {name[:200]}"
                )
            item = _item(path, group, name, own_name)
            if isinstance(item, h5py.Group):
                waiting.append((f"{name}/", item))
            elif isinstance(item, h5py.Dataset):
                found[name] = item
    return found


def _item(path: Path, group: h5py.Group, name: str, own_name: str) -> h5py.Group | h5py.Dataset:
    """Return what a name leads to; CheckpointError for what is not in the file, or no number.

    A link, or a dataset that is kept elsewhere, would show the content of another file.
    """
    if not isinstance(group.get(own_name, getlink=True), h5py.HardLink):
        raise CheckpointError(f"{path}: expected {name} in the file, found a link")
    item = group[own_name]
    if isinstance(item, h5py.Dataset):
        if item.external or item.is_virtual:
            raise CheckpointError(f"{path}: expected {name} in the file, found a link")
        if item.shape is None or item.dtype.kind not in "biuf":
            raise CheckpointError(f"{path}: expected numbers as {name}, found {item.dtype}")
    return item
