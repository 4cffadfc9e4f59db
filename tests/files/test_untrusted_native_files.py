"""Each framework's own files: faults that the fuzzer found or was written to find.

Each with its smallest input, which is refused by one printable line that names the file, at once
and without the memory that it asks for.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.files.errors import InputError
from shared.fixtures.network import representative_state
from shared.formats.file_kinds import FILE_KINDS
from shared.formats.native_contents import Contents
from tests.files.refusal import SPEC, damaged, refused


def whole() -> Contents:
    return Contents(representative_state(SPEC, 0), SPEC, {"step": 7, "seed": 1})


# --- PyTorch ---------------------------------------------------------------------------------


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
        with refused(InputError, r"b\.pth: expected"):
            pth.read(tmp_path / "b.pth")
            pytest.fail(kind)


def test_a_pth_whose_spec_asks_for_terabytes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pth = FILE_KINDS["torch"]
    pth.write(tmp_path / "a.pth", whole())
    saved = torch.load(tmp_path / "a.pth", weights_only=True)
    spec = json.loads(saved["spec"]) | {"width": 2**20, "latent_dim": 2**20}
    torch.save(saved | {"spec": json.dumps(spec)}, tmp_path / "a.pth")
    with refused(InputError, r"a\.pth: what it holds does not fit the system: wrong shape"):
        pth.read(tmp_path / "a.pth")


def test_a_packed_pth_is_not_unpacked(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(200 * 2**20))
    with refused(InputError, r"a\.pth: expected arrays as they are saved, unpacked"):
        FILE_KINDS["torch"].read(tmp_path / "a.pth")


# --- Keras and Flax --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["never written", "packed", "text", "empty"])
def test_a_dataset_of_terabytes_or_of_no_numbers(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    keras = FILE_KINDS["keras"]
    path = tmp_path / "a.weights.h5"
    arrays = {n: a for n, a in whole().arrays.items() if not n.split("/")[0].endswith("optimizer")}
    keras.write(path, Contents(arrays, SPEC))
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
    with refused(InputError, rf"a\.weights\.h5: expected .*{message}"):
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
    with refused(InputError, r"a\.weights\.h5: expected at most 10,000 groups and arrays"):
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
    with refused(InputError, r"a\.orbax: declares .* bytes, more than"):
        orbax.read(tmp_path / "a.orbax")
