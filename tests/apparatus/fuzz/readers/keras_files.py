""".weights.h5: `tf_impl.native_format.read_native`."""

import functools
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from shared.files.errors import InputError
from shared.formats.native_contents import Contents, part_shapes
from shared.spec import NETWORKS
from tests.apparatus.fuzz.archives import zip_of
from tests.apparatus.fuzz.json_mutators import mutated_document
from tests.apparatus.fuzz.places import Files
from tests.apparatus.fuzz.reader import Reader
from tests.apparatus.fuzz.readers.torch_files import SPEC, check_contents, whole_contents


@functools.cache
def _samples() -> list[bytes]:
    from tf_impl.native_format import write_native

    whole = whole_contents()
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for parts in (NETWORKS, ("generator",), ("discriminator",)):
            arrays = {name: whole.arrays[name] for name in part_shapes(whole.spec, parts)}
            write_native(Path(folder, "a.weights.h5"), Contents(arrays, whole.spec))
            made.append(Path(folder, "a.weights.h5").read_bytes())
    foreign = _of_keras_2()
    return [*made, foreign, zip_of({"metadata.json": b"{}", "model.weights.h5": foreign})]


def _of_keras_2() -> bytes:
    """Return somebody's generator with the names of Keras 2 and the order of its layers."""
    import h5py

    words = {"kernel": "kernel:0", "bias": "bias:0"}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [f"dense_{n}".encode() for n in (1, 2, 3)]
        for name in part_shapes(SPEC, ("generator",)):
            _, layer, parameter = name.split("/")
            group[f"{layer}/{layer}/{words[parameter]}"] = whole_contents().arrays[name]
    return buffer.getvalue()


def other_order(draw: Random) -> bytes:
    """An odd value as the order of the layers of Keras 2."""
    import h5py
    import numpy as np

    buffer = io.BytesIO(_of_keras_2())
    values = (3, b"x", [b"\xff"], [1.5, 2.5], np.zeros((2, 2)), "text", [b"dense_3", b"nowhere"])
    with h5py.File(buffer, "a") as file:
        file["model_weights"].attrs["layer_names"] = draw.choice(values)
    return buffer.getvalue()


def _changed(change: Callable[[Any], None]) -> bytes:
    """Return a sample after a change with h5py."""
    import h5py

    buffer = io.BytesIO(_samples()[0])
    with h5py.File(buffer, "a") as file:
        change(file)
    return buffer.getvalue()


def huge_dataset(draw: Random) -> bytes:
    """A dataset of terabytes that was never written: it takes no room in the file."""
    shape = draw.choice(((2**20, 2**20), (2**34,), (2**60,), (30_000, 30_000)))
    name = draw.choice(("generator/dense_1/vars/0", "generator/x"))

    def change(file: Any) -> None:
        file.pop(name, None)
        file.create_dataset(name, shape, "f4", chunks=(1,) * len(shape))

    return _changed(change)


def packed_dataset(draw: Random) -> bytes:
    """Zeros, packed to a thousandth."""
    import numpy as np

    values = np.zeros((2**20, draw.choice((1, 50))), "f4")
    return _changed(
        lambda f: f.create_dataset("generator/x", data=values, compression="gzip", chunks=True)
    )


def odd_dataset(draw: Random) -> bytes:
    """A dataset of another type in the place of an array."""
    import h5py
    import numpy as np

    texts = h5py.string_dtype()
    compound = np.dtype([("a", "f4"), ("b", "S3")])
    values: tuple[Any, ...] = (
        *(np.zeros(1, "i4"), np.zeros(1, "f2"), np.zeros(1, ">f4"), np.zeros(1, "?"), "text"),
        *(np.array([b"x"]), np.zeros(1, compound), h5py.Empty("f4"), np.zeros((0, 3), "f4")),
        *(np.array(["a", "b"], object), np.zeros(1, "c8")),
    )
    value = draw.choice(values)
    name = draw.choice(("generator/dense_1/vars/0", "generator/x", "generator/\x1b[31m\nx"))

    def change(file: Any) -> None:
        file.pop(name, None)
        is_text = getattr(value, "dtype", None) == np.dtype(object)
        file.create_dataset(name, data=value, dtype=texts if is_text else None)

    return _changed(change)


def link(draw: Random) -> bytes:
    """A link to another file, to itself, or to nothing in the place of an array."""
    import h5py

    made = draw.choice(
        (
            h5py.ExternalLink("/etc/passwd", "/"),
            h5py.SoftLink("/generator/dense_1/vars/0"),
            h5py.SoftLink("/nowhere"),
            h5py.SoftLink("/generator"),
        )
    )

    def change(file: Any) -> None:
        del file["generator/dense_1/vars/0"]
        file["generator/dense_1/vars/0"] = made
        file["generator/circle"] = file["generator"]

    return _changed(change)


def external_or_virtual(draw: Random) -> bytes:
    import h5py

    def change(file: Any) -> None:
        del file["generator/dense_1/vars/0"]
        if draw.random() < 0.5:
            external = [("/etc/hostname", 0, 2)]
            file.create_dataset("generator/dense_1/vars/0", (2,), "u1", external=external)
        else:
            layout = h5py.VirtualLayout((1,), "f4")
            layout[:] = h5py.VirtualSource("/etc/passwd", "a", (1,))
            file.create_virtual_dataset("generator/dense_1/vars/0", layout)

    return _changed(change)


def other_description(draw: Random) -> bytes:
    import numpy as np

    def change(file: Any) -> None:
        field = draw.choice(("spec", "spec", "spec", "format"))
        if field == "format" or draw.random() < 0.2:
            odd = ("2", 3, np.zeros(3), b"\xff", "", "x" * 5000, np.array(["a"], "S1"))
            file.attrs[field] = draw.choice(odd)
            return
        _, text = mutated_document(draw, json.loads(file.attrs["spec"]))
        file.attrs["spec"] = text.decode("utf-8", "replace").replace("\0", "")[:60_000]

    return _changed(change)


def many_groups(draw: Random) -> bytes:
    depth, count = draw.choice(((3000, 1), (1, 3000)))

    def change(file: Any) -> None:
        for number in range(count):
            file.create_group(f"{number}" + "/a" * depth)

    return _changed(change)


_FILES = Files(
    (".weights.h5", ".keras"),
    _samples,
    (
        huge_dataset,
        packed_dataset,
        odd_dataset,
        odd_dataset,
        link,
        external_or_virtual,
        other_description,
        other_description,
        other_description,
        many_groups,
        other_order,
    ),
    share=0.3,
)


def read(path: Path) -> None:
    from tf_impl.native_format import read_native

    check_contents(read_native(path))


READER = Reader(
    "keras",
    _FILES.make,
    read,
    (InputError,),
    needs=("tensorflow", "h5py"),
    prepare=_FILES.prepared(read),
)
