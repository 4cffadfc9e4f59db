"""TensorFlow's checkpoints: `tf_impl.native_format.read_native` of an index beside its data."""

import functools
import tempfile
from pathlib import Path
from random import Random

from shared.files.errors import InputError
from shared.formats.native_contents import part_shapes
from tests.apparatus.fuzz.mutators import mutated
from tests.apparatus.fuzz.places import Files, case_of, path_in
from tests.apparatus.fuzz.reader import Case, Reader
from tests.apparatus.fuzz.readers.torch_files import SPEC, check_contents, whole_contents

ENDINGS = (".index", ".data-00000-of-00001")


@functools.cache
def _sample() -> tuple[bytes, bytes]:
    """Return an intact index and its data, with the names of TensorFlow 1."""
    import tensorflow as tf

    names = list(part_shapes(SPEC, ("generator",)))
    tensors = [tf.constant(whole_contents().arrays[name]) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder, "a")
        tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=tensors,
        )
        index, data = (Path(f"{prefix}{ending}").read_bytes() for ending in ENDINGS)
    return index, data


def make(draw: Random, folder: Path) -> Case:
    """Write both files, of which one is damaged."""
    if draw.random() < 0.04:
        return Files((".index",), lambda: [b"no index"]).make(draw, folder)
    path = path_in(draw, folder, ENDINGS[0])
    other = path.with_name(path.name.removesuffix(ENDINGS[0]) + ENDINGS[1])
    index, data = _sample()
    label, which = "data missing", draw.random()
    if which < 0.7:
        label, index = mutated(draw, [index])
    elif which < 0.95:
        label, data = mutated(draw, [data])
    path.write_bytes(index)
    if which < 0.95:
        other.write_bytes(data)
    return case_of(path, label)


def read(path: Path) -> None:
    from tf_impl.native_format import read_native

    check_contents(read_native(path))


def prepare() -> None:
    """Read an intact checkpoint, which has to go well."""
    with tempfile.TemporaryDirectory() as folder:
        for ending, content in zip(ENDINGS, _sample(), strict=True):
            Path(folder, f"a{ending}").write_bytes(content)
        read(Path(folder, "a"))


READER = Reader("tf-checkpoint", make, read, (InputError,), needs=("tensorflow",), prepare=prepare)
