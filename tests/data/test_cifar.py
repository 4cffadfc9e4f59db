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

from shared.data.cifar import MAXIMUM_INSTRUCTIONS, read_batch
from shared.data.dataset import DataError, load_dataset
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


def test_no_pickle_runs_anything(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name, content in malicious(canary).items():
        path = write(tmp_path / "data_batch_1", content)
        message = "data_batch_1: .*(the (instruction|name)|pickle|not enough)"
        with pytest.raises(DataError, match=message):
            load_dataset(path, COLOUR)
        assert not canary.exists(), name


def test_a_forged_dtype_makes_no_addresses_of_bytes(tmp_path: Path) -> None:
    """NumPy's own array of objects, if its dtype says that it holds none, reads any address."""
    sample = batch_of_python_2(ROWS)
    for kind in (b"O8", b"u8", b"V1", b"f4"):
        content = sample.replace(b"U\x02u1", b"U\x02" + kind)
        assert content != sample
        with pytest.raises(DataError, match=r"an array of something else than bytes \(u1\)"):
            read_batch(write(tmp_path / "data_batch_1", content))


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n"
NDARRAY, DTYPE = b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"
MADE = ARRAY + NDARRAY + b"K\x00\x85U\x01b\x87R"  # an array that is to be filled
U1 = DTYPE + b"U\x02u1K\x00K\x01\x87R"
DATA = b"}U\x04data"
TUPLES_OF_TUPLES = b"q\x01h\x01\x86" * 24  # 2**24 of them to hash


def array_of(state: bytes) -> bytes:
    """Return the instructions of a batch whose array is filled with this state."""
    return DATA + MADE + b"(" + state + b"tbs."


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (DATA + ARRAY + b"N}U\x08__call__Ns\x86bs.", "found .*not enough values"),
        (DATA + ARRAY + b"N}U\x09__class__K\x01s\x86bs.", "found .*not enough values"),
        (DATA + NDARRAY + b"}U\x01xK\x01sbs.", "found .*not enough values"),
        (b"}N}X\x0b\0\0\0__setitem__" + NDARRAY + b"s\x86bK\x01Ns.", "read-only"),
        (DATA + b"]N}X\x06\0\0\0append" + NDARRAY + b"s\x86bs.", "read-only"),
        (DATA + NDARRAY + b")Rs.", "found .*cannot unpack"),
        (NDARRAY + b")\x81.", "the instruction NEWOBJ"),
        (b"(" + NDARRAY + b"K\x01o.", "the instruction OBJ"),
        (b"(K\x01inumpy\nndarray\n.", "the instruction INST"),
        (b"\x82\x01.", "the instruction EXT1"),
        (b"\x84\xff\xff\xff\x7f.", "the instruction EXT4"),
        (b"U\x01xQ.", "the instruction BINPERSID"),
        (b"U\x01x)R.", "not callable"),
        (ARRAY + b"K\x01R.", "found another or damaged"),
        (b"cnumpy\nndarray.tofile\n.", "the name 'numpy ndarray.tofile'"),
        (array_of(b"K\x01K\x01\x85U\x02u1\x89U\x01x"), r"bytes \(u1\)"),
        (array_of(b"K\x01K\x01\x85" + DTYPE + b"\x89U\x01x"), r"bytes \(u1\)"),
        (array_of(b"K\x01K\x01\x85" + U1 + b"\x88U\x01x"), "C order"),
        (array_of(b"K\x01J\xff\xff\xff\x7f\x85" + U1 + b"\x89U\x01x"), "cannot reshape"),
        (array_of(b"K\x01\x8a\x08" + b"\xff" * 7 + b"\x7f\x85" + U1 + b"\x89U\x00"), "found"),
        (array_of(b"K\x01\x8a\x09" + b"\xff" * 8 + b"\x7f\x85" + U1 + b"\x89U\x00"), "found"),
        (array_of(b"K\x01NK\x01" + U1 + b"\x89U\x01x"), "found too many values"),
        (array_of(b"K\x01K\x01\x85" + U1 + b"\x89K\x05"), "found another or damaged"),
        (array_of(b"K\x01" + MADE + U1 + b"\x89U\x01x"), "found another or damaged"),
        (DATA + MADE + MADE + b"bs.", "found another or damaged"),
        (DATA + MADE + b"s.", "found .*cannot unpack"),
        (b"\x93.", "found another or damaged"),
        (b"K\x01K\x02\x93.", "found another or damaged"),
        (b"}N" + TUPLES_OF_TUPLES + b"Ns.", "a key of type tuple"),
        (b"}(N" + TUPLES_OF_TUPLES + b"Nu.", "a key of type tuple"),
        (b"}" + MADE + b"Ns.", "a key of type _StandIn"),
        (b"]q\x00h\x00a\x85q\x01}h\x00Ns.", "a key of type list"),
        (b"h\x07.", "found another or damaged"),
    ],
)
def test_a_hostile_pickle_is_refused(tmp_path: Path, instructions: bytes, message: str) -> None:
    """Each uses a name that is admitted, or none, to reach something else."""
    path = write(tmp_path / "data_batch_1", b"\x80\x02" + instructions)
    began = time.process_time()
    with pytest.raises(DataError, match=message):
        read_batch(path)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02Nr" + struct.pack("<I", 2**31 - 1) + b".",  # a place in the memo: 32 GB in C
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**38) + b"x.",
        b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.",  # hashed, it would end Python's C stack
        b"\x80\x02N" + b"r" + struct.pack("<I", MAXIMUM_INSTRUCTIONS) + b".",
        b"\x80\x02" + b"]" * (MAXIMUM_INSTRUCTIONS + 1),
        b"\x80\x02" + b"N" * 200_000 + b"(t" * 200_000 + b"(",
        b"\x80\x02}(.",
        b"\x80\x02e.",
        b"\x80\x02R.",
        b"\x80\x02h\x05.",
        b"",
    ],
    ids=["memo", "bytes", "bytearray", "nested key", "memo of many", "many", "quadratic", *"abcde"],
)
def test_a_few_bytes_ask_for_nothing(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "data_batch_1", content)
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(DataError, match="data_batch_1: expected"):
            read_batch(path)
        assert tracemalloc.get_traced_memory()[1] < 400 * 2**20
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({b"data": np.zeros((2, 3071), np.uint8)}, r"found data of shape \(2, 3071\)"),
        ({b"data": np.zeros((0, 3072), np.uint8)}, r"found data of shape \(0, 3072\)"),
        ({b"data": [1, 2]}, "found no array called data"),
        ({b"labels": [1, 2]}, "found no array called data"),
        ([1], "found no array called data"),
        ({b"data": np.zeros((2, 3072))}, "something else than bytes"),
        ({b"data": [np.zeros((2, 3072), np.uint8)]}, "found no array called data"),
        ({1, 2}, "the instruction EMPTY_SET|the name"),
    ],
)
def test_another_value_is_an_error(tmp_path: Path, value: object, message: str) -> None:
    path = write(tmp_path / "data_batch_1", pickle.dumps(value, protocol=4))
    with pytest.raises(DataError, match=message):
        read_batch(path)
