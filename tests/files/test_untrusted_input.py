"""Faults that the fuzzer found or was written to find, each with its smallest input.

Every input is refused by one printable line that names the file, at once and without the memory
that it asks for.
"""

from __future__ import annotations

import copy
import json
import os
import re
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import compare
from benchmarks.document.stored import MAXIMUM_WINDOWS, load
from shared.convert.file_kinds import FILE_KINDS
from shared.convert.native_contents import NativeContents
from shared.data import images as image_files
from shared.data.dataset import DataError, load_dataset
from shared.files.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from shared.files.errors import MAXIMUM_MESSAGE, one_line, printable
from shared.fixtures.load import LOSSES_FILE, FixtureError, load_loss_cases, load_network_fixture
from shared.fixtures.make_network import representative_state
from shared.spec import SYSTEMS
from tests.apparatus.fuzz.archives import lzma_that_asks_for_memory, zip_of
from tests.apparatus.fuzz.readers.images import with_scans
from tests.apparatus.fuzz.readers.npz import npy
from tests.apparatus.fuzz.readers.safetensors_files import parts, with_header
from tests.benchmarks.documents import make_document

GREY = SYSTEMS["conv28"]
SPEC = SYSTEMS["mlp28"].replace(width=1, latent_dim=2, batch_size=2)
DEEP = "[" * 100_000
DIGITS = "1" * 5000


@contextmanager
def refused(error: type[Exception], message: str) -> Iterator[None]:
    """The block raises one printable line that matches, in 5 seconds and with 100 MiB."""
    tracemalloc.start()
    began = time.process_time()  # the machine may be busy with others
    try:
        with pytest.raises(error) as raised:
            yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    text = str(raised.value)
    assert re.search(message, text), text
    assert text.isprintable()
    assert len(text) <= MAXIMUM_MESSAGE
    assert time.process_time() - began < 5
    assert peak < 100 * 2**20


# --- messages --------------------------------------------------------------------------------


def test_a_message_is_one_line_that_a_terminal_takes() -> None:
    text = one_line("a\nb\x1b[31m\u202e\udcff\u2028é🎨 " + "x" * 10**6)
    assert text.startswith("a b\\x1b[31m\\u202e\\udcff é🎨 x")
    assert (len(text), text[-2:]) == (MAXIMUM_MESSAGE, " …")
    assert one_line("short") == "short"
    assert printable("a\nb/ü 🎨") == "a\\nb/ü 🎨"


@pytest.mark.parametrize("name", ["new\nline", "\x1b[31mred", "caf\udce9"])
def test_an_odd_name_stays_on_its_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.npz"
    path.write_bytes(b"PK\x03\x04")
    shown = re.escape(printable(path.name.replace("\n", " ")))  # a message is one line
    with refused(DataError, shown):
        load_dataset(path, GREY)
    with refused(CheckpointError, shown):
        read_checkpoint(path)


# --- arrays and pictures ---------------------------------------------------------------------


def test_a_member_that_only_lzma_unpacks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(lzma_that_asks_for_memory("images.npy"))
    with refused(DataError, r"a\.npz: images\.npy is packed by another method; expected stored"):
        load_dataset(tmp_path / "a.npz", GREY)


def test_a_shape_of_very_many_digits_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(zip_of({"images.npy": npy(f"({'9' * 4000}, 1, 1)", b"")}))
    with refused(DataError, r"a\.npz"):
        load_dataset(tmp_path / "a.npz", GREY)


def test_a_jpeg_of_very_many_scans_is_refused(tmp_path: Path) -> None:
    """Measured: 64 million pixels in 300 scans took 25 seconds."""
    for count, name in ((90, "few"), (10_000, "many")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(with_scans(count))
    assert load_dataset(tmp_path / "few", GREY).skipped == ()
    with refused(DataError, r"many: none .* too many scans; expected a JPEG of at most 100"):
        load_dataset(tmp_path / "many", GREY)


def test_large_pictures_are_decoded_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight of 64 million pixels at once would take eight gigabytes."""
    monkeypatch.setattr(image_files, "LARGE_PIXELS", 99)
    for i in range(100):
        Image.new("RGB", (10, 10)).save(tmp_path / f"{i:03}.png")
    decode, running, most = image_files.resize_and_crop, threading.Semaphore(0), []

    def counted(image: Image.Image, size: int) -> Image.Image:
        running.release()
        most.append(running._value)
        time.sleep(0.001)
        result = decode(image, size)
        running.acquire()
        return result

    monkeypatch.setattr(image_files, "resize_and_crop", counted)
    assert len(load_dataset(tmp_path, GREY).images) == 100
    assert max(most) == 1
    monkeypatch.setattr(image_files, "LARGE_PIXELS", 100)
    most.clear()
    load_dataset(tmp_path, GREY)
    assert max(most) > 1


# --- checkpoints -----------------------------------------------------------------------------


def checkpoint(path: Path, **fields: str) -> Path:
    """Write a checkpoint with other texts in its header."""
    write_checkpoint(path, representative_state(SPEC, 0), SPEC, progress={"step": 1})
    header, data = parts(path.read_bytes())
    header["__metadata__"] |= fields
    path.write_bytes(with_header(header, data))
    return path


@pytest.mark.parametrize("field", ["spec", "progress"])
@pytest.mark.parametrize("text", [DEEP, f'{{"step": {DIGITS}}}', '{"a":' * 100_000])
def test_json_that_python_cannot_take(tmp_path: Path, field: str, text: str) -> None:
    path = checkpoint(tmp_path / "a.safetensors", **{field: text})
    with refused(CheckpointError, rf"a\.safetensors: .*expected a JSON object as '{field}'"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 2**40}, "width.* of at most 1,048,576"),
        ({"image_range": "ab"}, "image_range of two numbers"),
        ({"image_range": [1.0, -1.0]}, "image_range of two numbers"),
        ({"latent_distribution": "cauchy"}, "latent_distribution normal or uniform"),
        ({"name": "\x1b[31mred\n"}, "a printable name"),
        ({"name": 3}, "a printable name"),
        ({"generator_optimizer": {}}, "no field left out"),
        ({"generator_optimizer": {"learning_rate": "fast"}}, "each a finite number"),
        ({"generator_optimizer": {"epsilon": float("inf")}}, "each a finite number"),
    ],
)
def test_a_spec_that_is_no_spec(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    spec = SPEC.to_dict()
    adam = spec["generator_optimizer"]
    spec |= change
    if change.get("generator_optimizer"):
        spec["generator_optimizer"] = adam | change["generator_optimizer"]
    path = checkpoint(tmp_path / "a.safetensors", spec=json.dumps(spec))
    with refused(CheckpointError, rf"a\.safetensors: the spec in the header.*{message}"):
        read_checkpoint(path)


@pytest.mark.parametrize("shape", [[2**63, 0], [2**62, 2, 0], [1] * 70 + [0]])
def test_a_shape_of_nothing_that_numpy_refuses(tmp_path: Path, shape: list[int]) -> None:
    path = checkpoint(tmp_path / "a.safetensors")
    header, data = parts(path.read_bytes())
    header["extra"] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data)]}
    path.write_bytes(with_header(header, data))
    with refused(CheckpointError, r"a\.safetensors: "):
        read_checkpoint(path)


# --- fixtures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("real_scores", 0, "bits"), "0x1p+99999999"),
        (("real_scores",), []),
        (("expected", "generator", 0, "decimal"), "1e999999999"),
        (("expected", "generator", 0, "decimal"), "1/0"),
        (("expected", "generator", 0), {"special": "infinity"}),
        (("expected", "generator_fake_gradient"), []),
        (("labels",), {"real_label": "one"}),
        (("labels",), {"third": 1.0}),
        (("tolerance",), None),
        (("divergences",), [{"fields": ["generator"]}]),
        (("loss",), "hinge"),
        (("id",), 7),
    ],
)
def test_a_loss_case_with_an_odd_value(tmp_path: Path, place: tuple, value: object) -> None:
    document = json.loads(LOSSES_FILE.read_text("utf-8"))
    document["cases"] = document["cases"][:1]
    holder = document["cases"][0]
    for key in place[:-1]:
        holder = holder[key]
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert len(load_loss_cases(tmp_path / "a.json")) == 1
    holder[place[-1]] = value
    (tmp_path / "a.json").write_text(json.dumps(document))
    with refused(FixtureError, r"a\.json: expected a file of `python -m shared\.fixtures"):
        load_loss_cases(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", DEEP, DIGITS, '{"cases": [3]}', "\xff"])
def test_a_loss_fixture_of_another_kind(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with refused(FixtureError, r"a\.json: expected a file of"):
        load_loss_cases(tmp_path / "a.json")


def test_a_network_fixture_that_is_not_there_or_damaged(tmp_path: Path) -> None:
    with refused(FixtureError, r"narrow-dcgan64-inputs\.safetensors: .*found nothing"):
        load_network_fixture(tmp_path)
    for file in LOSSES_FILE.parent.glob("*.safetensors"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    load_network_fixture(tmp_path)
    path = tmp_path / "narrow-dcgan64-gradients.safetensors"
    header, data = parts(path.read_bytes())
    for field, text in {"spec": "{}", "metrics": DEEP, "seed": "x", "kink_margin": "y"}.items():
        changed = copy.deepcopy(header)
        changed["__metadata__"][field] = text
        path.write_bytes(with_header(changed, data))
        with refused(FixtureError, r"gradients\.safetensors: expected a file"):
            load_network_fixture(tmp_path)
    del header["__metadata__"]
    path.write_bytes(with_header(header, data))
    with refused(
        FixtureError, r"gradients\.safetensors: expected the format .*found none; give a file"
    ):
        load_network_fixture(tmp_path)
    path.write_bytes(b"\xff" * 64)
    with refused(FixtureError, r"gradients\.safetensors: expected a complete .*; give a file"):
        load_network_fixture(tmp_path)


# --- documents of the benchmark --------------------------------------------------------------


def document() -> dict[str, Any]:
    arguments = ["--framework", "pytorch", "--width", "8", "--rounds", "2"]
    return make_document(arguments, lambda configuration, number: [100.0, 101.0])


def damaged(found: dict[str, Any], place: tuple, value: object) -> dict[str, Any]:
    holder: Any = found
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    return found


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("rows", 0, "windows"), None, "rows[0].windows: None is not of type 'array'"),
        (("rows", 0, "windows"), [], "rows[0].windows: [] is too short"),
        (("rows", 0, "windows", 0), 3, "windows[0]: 3 is not of type 'object'"),
        (("rows", 0, "windows", 0, "ms"), 0, "windows[0].ms: 0 is less than"),
        (("rows", 0, "windows", 0, "ms"), float("nan"), "it holds NaN"),
        (("rows", 0, "windows", 0, "steps"), "x", "windows[0].steps: 'x' is not"),
        (("rows", 0, "settings"), {}, "rows[0].settings: 'platform' is a required"),
        (("rows",), [], "is ok and has no row"),
        (("rows",), [{"windows": []}] * 501, "is too long"),
        (("rows",), 3, "rows: 3 is not of type 'array'"),
        (("summary", 0, "configuration"), "other", "summary[0].configuration: 'other' does"),
        (("summary", 0, "status"), None, "summary[0].status: None is not one of"),
        (("configurations", 0, "batch_size"), -1, "configurations[0].batch_size: -1 is less"),
        (("configurations", 0, "id"), "\x1b[31m", "configurations[0].id: "),
        (("host", "cpu"), {"a": 1}, "host.cpu: {'a': 1} is not of"),
        (("host",), [], "host: [] is not of type 'object'"),
        (("seed",), -1, "seed: -1 is less than"),
        (("seed",), 1.5, "seed: 1.5 is not of type 'integer'"),
        (("schema_version",), {"a": [1]}, "has the schema version"),
    ],
)
def test_a_document_with_an_odd_value(
    tmp_path: Path, capsys: pytest.CaptureFixture, place: tuple, value: object, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document()))
    assert compare.main([str(path), str(path)]) == 0
    path.write_text(json.dumps(damaged(document(), place, value)))
    with refused(ValueError, rf"a\.json .*{re.escape(message)}"):
        load(path)
    capsys.readouterr()
    assert compare.main([str(path), str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_more_windows_than_can_be_resampled(tmp_path: Path) -> None:
    found = document()
    found["rows"][0]["windows"] *= 50
    found["rows"] = found["rows"][:1] * (MAXIMUM_WINDOWS // 100 + 1)
    (tmp_path / "a.json").write_text(json.dumps(found))
    with refused(ValueError, "expected at most 2,500 windows, found 2,600"):
        load(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["", DEEP, DIGITS, "3", "[]", "\xff", '{"a":' * 100_000])
def test_what_is_no_document(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with refused(ValueError, r"a\.json"):
        load(tmp_path / "a.json")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with refused(ValueError, r"a\.json: expected a file of run\.py --json, found no file"):
        load(tmp_path / "a.json")
    with refused(FixtureError, r"a\.json: expected a file"):
        load_loss_cases(tmp_path / "a.json")


# --- PyTorch ---------------------------------------------------------------------------------


def whole() -> NativeContents:
    return NativeContents(representative_state(SPEC, 0), SPEC, {"step": 7, "seed": 1})


def odd_tensors(torch: Any) -> dict[str, tuple[tuple, object]]:
    """Return by kind where an odd value stands in a whole file, and the value."""
    kernel, adam = ("generator", "main.0.weight"), ("generator_optimizer", "state", 0, "step")
    return {
        "expanded": (kernel, torch.zeros(1).expand(2**20, 2**12)),
        "meta": (kernel, torch.zeros(1, 2, device="meta")),
        "negative view": (kernel, torch._neg_view(torch.ones(1, 2))),
        "rows only where they are": (kernel, torch.eye(2).to_sparse_csr()),
        "huge step": (adam, 10**30),
        "infinite step": (adam, torch.tensor(float("inf"))),
        "step beyond int64": (adam, torch.tensor(1e30)),
        "state of a list": (("generator_optimizer", "state"), [1, 2]),
        "state of a number": (("generator_optimizer", "state", 0), 3),
        "a tensor as group": (("generator_optimizer", "param_groups", 0), torch.ones(3)),
        "no group": (("generator_optimizer", "param_groups", 0), 3),
        "parameters of a number": (("generator_optimizer", "param_groups", 0, "params"), 3),
        "rate of many": (("generator_optimizer", "param_groups", 0, "lr"), torch.ones(3)),
        "decay of many": (
            ("generator_optimizer", "param_groups", 0, "weight_decay"),
            torch.ones(3),
        ),
    }


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")  # of making one
def test_a_pth_with_an_odd_value(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pth = FILE_KINDS["torch"]
    path = tmp_path / "a.pth"
    pth.write(path, whole())
    for kind, (place, value) in odd_tensors(torch).items():
        saved = torch.load(tmp_path / "a.pth", weights_only=True)
        torch.save(damaged(saved, place, value), tmp_path / "b.pth")
        with refused(CheckpointError, r"b\.pth: expected"):
            pth.read(tmp_path / "b.pth")
            pytest.fail(kind)


def test_a_pth_whose_spec_asks_for_terabytes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pth = FILE_KINDS["torch"]
    pth.write(tmp_path / "a.pth", whole())
    saved = torch.load(tmp_path / "a.pth", weights_only=True)
    spec = json.loads(saved["spec"]) | {"width": 2**20, "latent_dim": 2**20}
    torch.save(saved | {"spec": json.dumps(spec)}, tmp_path / "a.pth")
    with refused(CheckpointError, r"a\.pth: what it holds does not fit the system: wrong shape"):
        pth.read(tmp_path / "a.pth")


def test_a_packed_pth_is_not_unpacked(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(200 * 2**20))
    with refused(CheckpointError, r"a\.pth: expected a file of torch\.save, unpacked"):
        FILE_KINDS["torch"].read(tmp_path / "a.pth")


# --- Keras and Flax --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["never written", "packed", "text", "empty"])
def test_a_dataset_of_terabytes_or_of_no_numbers(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    keras = FILE_KINDS["keras"]
    path = tmp_path / "a.weights.h5"
    arrays = {n: a for n, a in whole().arrays.items() if not n.split("/")[0].endswith("optimizer")}
    keras.write(path, NativeContents(arrays, SPEC))
    options: dict[str, dict[str, Any]] = {
        "never written": {"shape": (2**20, 2**20), "dtype": "f4", "chunks": (1, 1)},
        "packed": {"data": np.zeros(2**22, "f4"), "compression": "gzip"},
        "text": {"data": "text"},
        "empty": {"data": h5py.Empty("f4")},
    }
    with h5py.File(path, "a") as file:
        del file["generator/dense_1/vars/0"]
        file.create_dataset("generator/dense_1/vars/0", **options[kind])
    message = "bytes declared in a file of" if kind in ("never written", "packed") else "numbers"
    with refused(CheckpointError, rf"a\.weights\.h5: expected .*{message}"):
        keras.read(path)


@pytest.mark.parametrize("name", ["/a" * 3000, "many", "circle"])
def test_groups_without_end(tmp_path: Path, name: str) -> None:
    """Measured: 3,000 groups inside one another kept h5py's visititems busy for over 20 seconds."""
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        if name == "circle":
            file["a"] = file["/"]
        for number in range(10_001 if name == "many" else 0):
            file.create_group(str(number))
        if name.startswith("/"):
            file.create_group(name)
    with refused(CheckpointError, r"a\.weights\.h5: expected at most 10,000 groups and arrays"):
        FILE_KINDS["keras"].read(tmp_path / "a.weights.h5")


def test_a_folder_that_declares_more_than_any_state_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jax", reason="JAX is not installed")
    pytest.importorskip("orbax.checkpoint", reason="orbax is not installed")
    orbax = FILE_KINDS["orbax"]
    orbax.write(tmp_path / "a.orbax", whole())
    declared = sum(array.nbytes for array in whole().arrays.values())
    monkeypatch.setattr("jax_impl.native_format.MAXIMUM_BYTES", declared)
    orbax.read(tmp_path / "a.orbax")
    monkeypatch.setattr("jax_impl.native_format.MAXIMUM_BYTES", declared - 1)
    with refused(CheckpointError, r"a\.orbax: declares arrays of .* expected at most"):
        orbax.read(tmp_path / "a.orbax")
