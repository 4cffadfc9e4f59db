"""Keras' own file, `.weights.h5`: what `load_weights` of this package's models reads.

"generator" and "discriminator" as `Networks` saves them, or one network as the model itself does.
The spec is JSON text in the attributes. There is no place for our Adam, which is no Keras object.

Read only, by the order and shapes of their layers: other people's models in HDF5, in a `.keras`,
and in TensorFlow's checkpoints.
"""

import glob
import io
import math
import tempfile
import zipfile
from pathlib import Path
from typing import BinaryIO

import h5py
import keras
import numpy as np
import tensorflow as tf

from shared.files.checkpoint import encode_description
from shared.files.errors import InputError, refused_as, require_file
from shared.formats.file_kinds import tensorflow_prefix
from shared.formats.keras_names import read_foreign
from shared.formats.native_contents import DESCRIPTION_FIELDS, Contents, assemble, require_unpacked
from shared.formats.state_dicts import order_of_layers
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
        f"{network}/{own}/vars/{i}": f"{network}/{layer.name}/{parameter.name}"
        for network in NETWORKS
        for layer in spec.layers(network)
        for own in [spec.name_in("keras", network, layer, layer.name)]
        for i, parameter in enumerate(layer.parameters)
    }


def write_native(path: Path, contents: Contents) -> None:
    """Write contents that fit: `FileKind.write`."""
    # The layout of Keras' `save_weights`, which could not put the spec beside the weights.
    with h5py.File(path, "w") as file:
        file.attrs.update(encode_description(contents.spec, contents.progress))
        for native, name in native_names(contents.spec).items():
            if name in contents.arrays:
                network = native.split("/", 1)[0]
                native = native.removeprefix(f"{network}/" if contents.is_one_network else "")
                file[native] = contents.arrays[name]


def read_native(path: Path) -> Contents:
    """Read a file and check it: `FileKind.read`."""
    # Keras' layouts are the canonical ones: HWIO, HWOI and (in, out).
    found, description = load(path)
    if not description:
        return read_foreign(path, found)
    return assemble(path, found, description, native_names)


def run_native(path: Path, contents: Contents, inputs: Arrays) -> Arrays:
    """Load a file as Keras' users do, and run its networks: `FileKind.run`."""
    if not load(path)[1]:
        with tempfile.TemporaryDirectory() as folder:  # in the layout of our models
            own = Path(folder, "own.weights.h5")
            write_native(own, read_native(path))
            return run_native(own, contents, inputs)
    # On the CPU, because a GPU's matrix products round float32 more coarsely.
    with tf.device("/CPU:0"):
        models = create_models(contents.spec, plain_layers(contents.dtype))
        pairs = zip(NETWORKS, models, strict=True)
        held = {network: model for network, model in pairs if network in contents.networks}
        with h5py.File(path, "r") as file:
            is_bare = not any(network in file for network in NETWORKS)
        for model in held.values() if is_bare else [Networks(**held)]:
            model.load_weights(path)
        return {name: model(tf.constant(inputs[name])).numpy() for name, model in held.items()}


# --- reading ---------------------------------------------------------------------------------


def load(path: Path) -> tuple[Arrays, dict[str, str]]:
    """Return every array by its path in the file, in its order, and the attributes."""
    prefix = tensorflow_prefix(path)
    expected = f"a complete {'checkpoint of TensorFlow' if prefix else 'HDF5 file'}"
    with refused_as(path, expected):
        if prefix:
            return _of_checkpoint(path, prefix), {}
        require_file(path, "a file")
        with _opened(path) as opened, h5py.File(opened, "r") as file:
            datasets = _datasets(path, file)
            # A few bytes may stand for gigabytes: packed, or never written and only declared.
            require_unpacked(path, sum(item.nbytes for item in datasets.values()))
            attributes = {n: file.attrs[n] for n in DESCRIPTION_FIELDS if n in file.attrs}
            return {name: np.array(item[()]) for name, item in datasets.items()}, attributes


def _opened(path: Path) -> BinaryIO:
    """Return an HDF5 file, which in a `.keras` is a member of a zip archive."""
    if not zipfile.is_zipfile(path):
        return open(path, "rb")
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("model.weights.h5")
        require_unpacked(path, member.file_size)
        return io.BytesIO(archive.read(member))


def _of_checkpoint(path: Path, prefix: Path) -> Arrays:
    """Return every array of numbers in a checkpoint of TensorFlow 1 or 2."""
    reader = tf.train.load_checkpoint(str(prefix))
    types, shapes = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
    names = [n for n, kind in types.items() if kind.is_floating or kind.is_integer]
    declared = sum(types[n].size * math.prod(shapes[n]) for n in names)
    require_unpacked(path, declared, *prefix.parent.glob(f"{glob.escape(prefix.name)}.*"))
    return {n: np.array(reader.get_tensor(n)) for n in sorted(names, key=order_of_layers)}


def _datasets(path: Path, file: h5py.File) -> dict[str, h5py.Dataset]:
    """Return every dataset by its path; `visititems` takes minutes for 3,000 nested groups."""
    found: dict[tuple, tuple[str, h5py.Dataset]] = {}
    waiting: list[tuple[str, tuple, h5py.Group]] = [("", (), file)]
    seen = 0
    while waiting:
        prefix, place, group = waiting.pop()
        listed = _listed(group)
        for own_name in group:
            name, seen = f"{prefix}{own_name}", seen + 1
            if seen > MAXIMUM_ITEMS or name.count("/") > MAXIMUM_DEPTH:
                raise InputError(
                    f"{path}: expected at most {MAXIMUM_ITEMS:,} groups and arrays, "
                    f"{MAXIMUM_DEPTH} inside one another; found more at {name[:200]}"
                )
            # A link, or a dataset that is kept elsewhere, would show another file's content.
            is_link = not isinstance(group.get(own_name, getlink=True), h5py.HardLink)
            item = None if is_link else group[own_name]
            if is_link or (isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)):
                raise InputError(f"{path}: expected {name} in the file, found a link")
            own = (*place, (listed.get(own_name, len(listed)), *order_of_layers(own_name)))
            if isinstance(item, h5py.Group):
                waiting.append((f"{name}/", own, item))
            elif isinstance(item, h5py.Dataset):
                if item.shape is None or item.dtype.kind not in "biuf":
                    raise InputError(f"{path}: expected numbers as {name}, found {item.dtype}")
                found[own] = name, item
    return dict(found[own] for own in sorted(found))


def _listed(group: h5py.Group) -> dict[str, int]:
    """Return the order of a group's members that Keras 1 and 2 keep beside them."""
    kept = [name for name in ("layer_names", "weight_names") if name in group.attrs]
    # HDF5 may loop for ever over texts of any length in a damaged file.
    fixed = [name for name in kept if group.attrs.get_id(name).dtype.kind == "S"]
    texts = [text.decode() for name in fixed for text in np.ravel(group.attrs[name])]
    return {text.partition("/")[0]: i for i, text in reversed([*enumerate(texts)])}
