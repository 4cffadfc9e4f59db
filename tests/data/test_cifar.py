"""CIFAR-10's python batches: every pixel in its place, and no pickle runs anything."""

import contextlib
import io
import os
import pickle
import struct
import time
import tracemalloc
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from shared.data.arrays import MAXIMUM_INSTRUCTIONS, read_batch
from shared.data.dataset import load_dataset
from shared.files.errors import InputError
from shared.spec import SYSTEMS
from tests.apparatus.fuzz.readers.cifar import batch_of_python_2

ROWS = np.random.default_rng(1).integers(0, 256, (5, 3072), dtype=np.uint8)
COLOUR = SYSTEMS["dcgan64"]


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


class Stub(pickle.Unpickler):
    """Python's own unpickler, which is given NumPy's arrays and otherwise stubs.

    A stub notes in `calls` what it is called with, and does nothing: so what an untrusted
    pickle would have done is seen without its being done.
    """

    ADMITTED = MappingProxyType(
        {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
    )

    def __init__(self, content: bytes, **options: str) -> None:
        super().__init__(io.BytesIO(content), **options)
        self.calls: list[tuple[str, tuple]] = []

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.ADMITTED:
            return self.ADMITTED[module, name]
        return lambda *arguments: self.calls.append((f"{module}.{name}", arguments))


def test_python_itself_reads_the_sample_of_python_2() -> None:
    """The hand-written bytes are the pickle that they are meant to be."""
    batch = Stub(batch_of_python_2(ROWS), encoding="bytes").load()
    np.testing.assert_array_equal(batch[b"data"], ROWS)
    assert batch[b"labels"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("protocol", ["python 2", 3, 4])
def test_every_pixel_is_in_its_place(tmp_path: Path, protocol: object) -> None:
    again = {b"data": ROWS, b"labels": [1] * 5, "names": ["ü", "b"], "x": (None, 0.5, 2**40, True)}
    content = (
        batch_of_python_2(ROWS)
        if protocol == "python 2"
        else pickle.dumps(again, protocol=protocol)
    )
    images = read_batch(write(tmp_path / "data_batch_1", content))
    assert images.shape == (5, 32, 32, 3)
    for n, row, column, channel in ((0, 0, 0, 0), (4, 31, 30, 2), (2, 7, 19, 1)):
        assert images[n, row, column, channel] == ROWS[n, 1024 * channel + 32 * row + column]


def test_a_folder_of_batches_is_joined(tmp_path: Path) -> None:
    for number in (2, 1, 3):
        rows = np.full((number, 3072), 10 * number, np.uint8)
        write(tmp_path / f"data_batch_{number}", batch_of_python_2(rows))
    write(tmp_path / "test_batch", batch_of_python_2(ROWS))
    write(tmp_path / "batches.meta", b"\x80\x02}.")
    dataset = load_dataset(tmp_path, COLOUR)
    assert dataset.images[:, 0, 0, 0].tolist() == [10, 20, 20, 30, 30, 30]
    assert dataset.images.shape == (6, 64, 64, 3)
    assert dataset.description == f"6 images from 3 batches of {tmp_path.name}"


class Payload:
    def __init__(self, function: object, *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> object:
        return self._call


def global_of(name: bytes, argument: bytes) -> bytes:
    text = b"X" + struct.pack("<I", len(argument)) + argument
    return b"\x80\x02c" + name + b"\n" + text + b"\x85R."


def stack_global_of(module: bytes, name: bytes, argument: bytes) -> bytes:
    texts = b"".join(b"\x8c" + bytes([len(t)]) + t for t in (module, name, argument))
    return (
        b"\x80\x04"
        + texts[: len(module) + len(name) + 4]
        + b"\x93"
        + (texts[len(module) + len(name) + 4 :] + b"\x85R.")
    )


def malicious(canary: Path) -> dict[str, bytes]:
    """Return pickles that make the canary where anything runs them."""
    touch = f"touch {canary}".encode()
    code = f"open({str(canary)!r}, 'w').close()"
    made = {
        f"{function.__name__} {protocol}": pickle.dumps(
            {"data": Payload(function, argument)}, protocol=protocol
        )
        for function, argument in ((os.system, touch.decode()), (exec, code), (eval, code))
        for protocol in (0, 1, 2, 3, 4, 5)
    }
    for name in (b"os\nsystem", b"posix\nsystem", b"numpy\nos.system", b"subprocess\ngetoutput"):
        made[f"global {name!r}"] = global_of(name, touch)
    for module, name in ((b"posix", b"system"), (b"numpy", b"core.os.system"), (b"os", b"popen")):
        made[f"stack global {name!r}"] = stack_global_of(module, name, touch)
    made["inst"] = b"(X" + struct.pack("<I", len(touch)) + touch + b"iposix\nsystem\n."
    made["obj"] = b"\x80\x02(cposix\nsystem\nX" + struct.pack("<I", len(touch)) + touch + b"o."
    made["newobj"] = (
        b"\x80\x02cposix\nsystem\nX" + struct.pack("<I", len(touch)) + touch + b"\x85\x81."
    )
    made["extension"] = b"\x80\x02\x82\x01."
    made["persistent id"] = b"\x80\x02Pposix\n."
    return made


def test_the_pickles_are_malicious(tmp_path: Path) -> None:
    """Python's own unpickler would call what they name, with what makes the canary."""
    canary = tmp_path / "canary"
    called = []
    for content in malicious(canary).values():
        stub = Stub(content)
        with contextlib.suppress(pickle.UnpicklingError, ValueError):
            stub.load()
        called += [name for name, arguments in stub.calls if str(canary) in repr(arguments)]
    assert len(called) >= 22
    system = f"{os.system.__module__}.system"
    for name in (system, "builtins.exec", "builtins.eval", "subprocess.getoutput"):
        assert name in called, name
    assert not canary.exists()


NONE = r"data_batch_1: expected .*, found no array of bytes \(u1\) called data"


def test_no_pickle_runs_anything(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name, content in malicious(canary).items():
        path = write(tmp_path / "data_batch_1", content)
        with pytest.raises(InputError, match=NONE):
            load_dataset(path, COLOUR)
        assert not canary.exists(), name
    beside = {"x": Payload(os.system, f"touch {canary}"), "data": ROWS}
    images = read_batch(write(tmp_path / "data_batch_1", pickle.dumps(beside, protocol=4)))
    assert images[2, 19, 7, 1] == ROWS[2, 1024 + 32 * 19 + 7]
    assert not canary.exists()


SAMPLE = batch_of_python_2(ROWS)


@pytest.mark.parametrize(
    ("known", "forged"),
    [
        *((b"U\x02u1", b"U\x02" + kind) for kind in (b"O8", b"u8", b"V1", b"f4")),
        (b"tb\x89T", b"tb\x88T"),  # Fortran's order
        (b"K\x05M\x00\x0c", b"K\x04M\x00\x0c"),  # 4 rows, and the bytes of 5
        (b"K\x05M\x00\x0c", b"K\x0aM\x00\x06"),
        (b"K\x05M\x00\x0c", b"K\x05J\xff\xff\xff\x7f"),
        (b"K\x05M\x00\x0c", b"K\x05\x8a\x08" + b"\xff" * 7 + b"\x7f"),
        (b"U\x04data", b"U\x04daat"),
    ],
)
def test_a_forged_array_is_refused(tmp_path: Path, known: bytes, forged: bytes) -> None:
    content = SAMPLE.replace(known, forged)
    assert content != SAMPLE
    with pytest.raises(InputError, match=NONE):
        read_batch(write(tmp_path / "data_batch_1", content))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02Nr" + struct.pack("<I", 2**31 - 1) + b".",  # a place in the memo: 32 GB in C
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**38) + b"x.",
        b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.",  # hashed, it would end Python's C stack
        b"\x80\x02}N" + b"q\x01h\x01\x86" * 24 + b"Ns.",  # 2**24 tuples to hash
        b"\x80\x02N" + b"r" + struct.pack("<I", MAXIMUM_INSTRUCTIONS) + b".",
        b"\x80\x02" + b"]" * (MAXIMUM_INSTRUCTIONS + 1),
        b"\x80\x02" + b"N" * 200_000 + b"(t" * 200_000 + b"(",
        b"\x80\x02}(.",
        b"\x80\x02e.",
        b"\x80\x02R.",
        b"\x80\x02h\x05.",
        b"",
    ],
    ids=[
        "memo",
        "bytes",
        "bytearray",
        "nested key",
        "hash",
        "memo of many",
        "many",
        "quadratic",
        *"abcde",
    ],
)
def test_a_few_bytes_ask_for_nothing(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "data_batch_1", content)
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(InputError, match="data_batch_1: expected"):
            read_batch(path)
        assert tracemalloc.get_traced_memory()[1] < 400 * 2**20
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    "value",
    [
        {b"data": np.zeros((2, 3071), np.uint8)},
        {b"data": np.zeros((0, 3072), np.uint8)},
        {b"data": np.zeros(3072, np.uint8)},
        {b"data": np.zeros((2, 3072))},
        {b"data": np.zeros((2, 3072), np.uint8, order="F")},
        {b"data": [1, 2]},
        {b"data": "x" * 3072},
        {b"labels": [1, 2]},
        {b"other": np.zeros((2, 3072), np.uint8)},
        [1],
        {1, 2},
    ],
)
def test_another_value_is_an_error(tmp_path: Path, value: object) -> None:
    path = write(tmp_path / "data_batch_1", pickle.dumps(value, protocol=4))
    with pytest.raises(InputError, match=NONE):
        read_batch(path)
