"""Keras' own file, `.weights.h5`: what `load_weights` of this package's models reads.

"generator" and "discriminator" as `Networks` saves them, or one network as the model itself does.
The spec is JSON text in the attributes. There is no place for our Adam, which is no Keras object.
"""

from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf

from shared.files.checkpoint import CheckpointError, encode_description
from shared.files.errors import require_file
from shared.formats.native_contents import DESCRIPTION_FIELDS, NativeContents, assemble
from shared.interface import Arrays
from shared.spec import NETWORKS, SystemSpec
from tf_impl.layers import plain_layers
from tf_impl.models import create_models

MAXIMUM_ITEMS, MAXIMUM_DEPTH = 10_000, 16
"""Most groups and datasets of a file, and most of them inside one another."""


class Networks(keras.Model):
    """Holds both networks, so that one `.weights.h5` can.

    >>> Networks(generator=generator, discriminator=discriminator).load_weights("gan.weights.h5")
    """

    def __init__(self, **networks: keras.Model) -> None:
        super().__init__(name="networks")
        for name, network in networks.items():
            setattr(self, name, network)
        self.built = True  # as they are; Keras asks before it saves or loads


def native_names(spec: SystemSpec) -> dict[str, str]:
    """Return each array's canonical name by its path: "generator/conv_transpose_1/vars/0"."""
    # Keras numbers a layer's variables, first those that are trained, in the order of creation.
    return {
        f"{network}/{layer.name}/vars/{i}": f"{network}/{layer.name}/{parameter.name}"
        for network in NETWORKS
        for layer in spec.layers(network)
        for i, parameter in enumerate(layer.parameters)
    }


def write_native(path: Path, contents: NativeContents) -> None:
    """Write contents that fit: `FileKind.write`."""
    # The layout of Keras' `save_weights`, which could not put the spec beside the weights.
    with h5py.File(path, "w") as file:
        file.attrs.update(encode_description(contents.spec, contents.progress))
        for native, name in native_names(contents.spec).items():
            if name in contents.arrays:
                network = native.split("/", 1)[0]
                native = native.removeprefix(f"{network}/" if contents.is_one_network else "")
                file[native] = contents.arrays[name]


def read_native(path: Path) -> NativeContents:
    """Read a file and check it: `FileKind.read`."""
    # Keras' layouts are the canonical ones: HWIO, HWOI and (in, out).
    return assemble(path, *load(path), native_names)


def run_native(path: Path, contents: NativeContents, inputs: Arrays) -> Arrays:
    """Load a file as Keras' users do, and run its networks: `FileKind.run`."""
    # On the CPU, because a GPU's matrix products round float32 more coarsely.
    with tf.device("/CPU:0"):
        generator, discriminator = create_models(contents.spec, plain_layers(contents.dtype))
        models: dict[str, keras.Model] = {"generator": generator, "discriminator": discriminator}
        held = {network: models[network] for network in contents.networks}
        with h5py.File(path, "r") as file:
            is_bare = not any(network in file for network in NETWORKS)
        for model in held.values() if is_bare else [Networks(**held)]:
            model.load_weights(path)
        return {name: model(tf.constant(inputs[name])).numpy() for name, model in held.items()}


# --- reading ---------------------------------------------------------------------------------


def load(path: Path) -> tuple[Arrays, dict[str, str]]:
    """Return every array by its path through the groups, and the attributes."""
    require_file(path, "a file", CheckpointError)
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
    """Return every dataset by its path; `visititems` takes minutes for 3,000 nested groups."""
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
            # A link, or a dataset that is kept elsewhere, would show another file's content.
            is_link = not isinstance(group.get(own_name, getlink=True), h5py.HardLink)
            item = None if is_link else group[own_name]
            if is_link or (isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)):
                raise CheckpointError(f"{path}: expected {name} in the file, found a link")
            if isinstance(item, h5py.Group):
                waiting.append((f"{name}/", item))
            elif isinstance(item, h5py.Dataset):
                if item.shape is None or item.dtype.kind not in "biuf":
                    raise CheckpointError(f"{path}: expected numbers as {name}, found {item.dtype}")
                found[name] = item
    return found
