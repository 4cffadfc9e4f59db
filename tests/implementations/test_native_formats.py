"""Each framework's own files: every bit survives, its loader reads them, nothing else passes."""

import dataclasses
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shared.convert.__main__ import verification_inputs
from shared.files.atomic import staged
from shared.files.errors import InputError
from shared.formats.file_kinds import FileKind
from shared.formats.native_contents import infer_spec, part_shapes
from shared.interface import Implementation
from shared.spec import NETWORKS, SYSTEMS, NetworkName
from tests.implementations.native_files import WIDTH, make_contents, narrow, require_same
from tests.tiers import one_in


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_round_trip_keeps_every_bit(own: FileKind, path: Path, system: str, dtype: str) -> None:
    spec = narrow(system, loss="bce_probs")
    contents = make_contents(spec, dtype, own.carried)
    first = next(n for n in contents.arrays if n.endswith("/kernel"))
    contents.arrays[first].flat[:4] = np.nan, -0.0, np.inf, 1e-42
    own.write(path, contents)
    read = own.read(path)
    require_same(read, contents)
    assert (read.spec, read.progress, read.spec_is_stored) == (spec, contents.progress, True)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("dtype", one_in(2, ["float32", "float64"]))
@pytest.mark.parametrize("system", one_in(2, SYSTEMS))
def test_the_frameworks_own_loader_gives_the_implementations_networks(
    own: FileKind, implementation: Implementation, path: Path, system: str, dtype: str
) -> None:
    """Around `read_native`: a layout that is wrong both ways would show here."""
    everything = make_contents(narrow(system), dtype)
    state = implementation.create(everything.spec, dtype=dtype)
    implementation.import_state(state, everything.arrays)
    contents = make_contents(narrow(system), dtype, own.carried)
    own.write(path, contents)
    inputs = verification_inputs(contents)
    outputs = own.run(path, contents, inputs)
    for name, expected in (
        ("generator", implementation.generate(state, inputs["generator"])),
        ("discriminator", implementation.discriminate(state, inputs["discriminator"])),
    ):
        assert outputs[name].dtype == dtype
        assert outputs[name].shape == expected.shape
        bound = {"float32": 1e-5, "float64": 1e-12}[dtype] * np.abs(expected).max()
        assert np.abs(outputs[name] - expected).max() <= bound, name


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_one_network_alone(own: FileKind, path: Path, system: str, network: str) -> None:
    contents = make_contents(narrow(system), carried=(network,))
    own.write(path, contents)
    read = own.read(path)
    require_same(read, contents)
    assert read.networks == (network,)
    assert read.spec.architecture == contents.spec.architecture
    assert read.spec.width == WIDTH
    assert read.spec.channels == 3
    if network == "generator":
        assert read.spec.latent_dim == 5
    else:
        assert read.spec.discriminator_head == contents.spec.discriminator_head
    outputs = own.run(path, read, verification_inputs(contents))
    assert list(outputs) == [network]


@pytest.mark.parametrize("parts", [NETWORKS, *((network,) for network in NETWORKS)], ids=str)
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_system_is_read_off_the_shapes(
    implementation: Implementation, system: str, parts: tuple[NetworkName, ...]
) -> None:
    """Without a stored spec, and one network without its name in front."""
    names_of = importlib.import_module(f"{implementation.name}_impl.native_format").native_names
    sizes = ((2, 7, 3), (64, 62, 4), (1, 1, 1), (8, 784, 1))
    for width, latent_dim, channels in sizes if parts == NETWORKS else sizes[:2]:
        spec = SYSTEMS[system].replace(width=width, latent_dim=latent_dim, channels=channels)
        expected = part_shapes(spec, parts)
        shapes = {n: expected[c] for n, c in names_of(spec).items() if c in expected}
        found, prefix = infer_spec(shapes, names_of)
        assert prefix == ""
        assert (found.width, found.channels) == (width, channels)
        if "generator" in parts:
            assert found.latent_dim == latent_dim
        # The two dcgan64 have the same generator.
        whole = "discriminator" in parts or not system.startswith("dcgan64")
        assert found.name == (system if whole else "dcgan64")
        if len(parts) == 1:
            bare = {n.removeprefix(f"{parts[0]}/"): shape for n, shape in shapes.items()}
            assert infer_spec(bare, names_of)[1] == f"{parts[0]}/"


def test_arrays_that_are_not_contiguous_arrive_as_they_look(own: FileKind, path: Path) -> None:
    contents = make_contents(carried=own.carried)
    arrays = {
        n: np.asfortranarray(a) if a.ndim > 1 else np.repeat(a, 2)[::2] if a.ndim else a
        for n, a in contents.arrays.items()
    }
    own.write(path, dataclasses.replace(contents, arrays=arrays))
    require_same(own.read(path), contents)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("generator/batch_norm_1/mean"), "missing: generator/batch_norm_1/mean"),
        (lambda a: a.update({"generator/extra": np.zeros(1, "f4")}), "unexpected: generator/extra"),
        (
            lambda a: a.update({"discriminator/conv_1/kernel": np.zeros((4, 4, 2, 3), "f4")}),
            r"wrong shape: discriminator/conv_1/kernel \(4, 4, 2, 3\)",
        ),
        (
            lambda a: a.update({"generator/batch_norm_1/mean": np.zeros(16, "f8")}),
            "expected float32 alone or float64 alone",
        ),
        (lambda a: a.clear(), "expected weights of a generator or discriminator"),
    ],
    ids=["missing", "unexpected", "wrong shape", "mixed dtypes", "empty"],
)
def test_what_does_not_fit_is_not_written(
    own: FileKind, path: Path, change: object, message: str
) -> None:
    contents = make_contents(carried=own.carried)
    change(contents.arrays)
    with pytest.raises(InputError, match=message):
        own.write(path, contents)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("implementation", ["tf"], indirect=True)
def test_a_part_without_a_place_is_refused(own: FileKind, path: Path) -> None:
    contents = make_contents()
    with pytest.raises(InputError, match=r"cannot carry generator_optimizer, .*progress"):
        own.write(path, contents)


@pytest.mark.parametrize("implementation", ["pytorch", "jax"], indirect=True)
def test_an_optimizer_without_its_network_is_refused(own: FileKind, path: Path) -> None:
    contents = make_contents(carried=("generator", "discriminator_optimizer"))
    with pytest.raises(InputError, match="discriminator_optimizer without the network"):
        own.write(path, contents)


def test_a_failed_write_leaves_the_old_file(
    own: FileKind, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_contents(carried=own.carried)
    own.write(path, old)

    def refuse(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(OSError, match="no space"):
            own.write(path, make_contents(narrow(width=3), carried=own.carried))
    require_same(own.read(path), old)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    own.write(path, make_contents(narrow(width=3), carried=own.carried))
    assert own.read(path).spec.width == 3
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_folder_comes_back_when_its_successor_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("old")
    replace = os.replace

    def refuse_the_new(source: Path, destination: Path) -> None:
        if (Path(source) / "new").exists():
            raise OSError("refused")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", refuse_the_new)

    def write_new() -> None:
        with staged(path) as temporary:
            temporary.mkdir()
            (temporary / "new").write_text("new")

    with pytest.raises(OSError, match="refused"):
        write_new()
    assert [p.name for p in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_refused(own: FileKind, path: Path) -> None:
    with pytest.raises(InputError, match=f"{path.name}: expected a .*, found nothing"):
        own.read(path)


@pytest.mark.parametrize("implementation", ["pytorch", "tf"], indirect=True)
def test_a_damaged_file_is_refused(own: FileKind, path: Path) -> None:
    own.write(path, make_contents(carried=own.carried))
    whole = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=path.name):
            own.read(path)


@pytest.mark.parametrize("implementation", ["jax"], indirect=True)
def test_a_damaged_folder_is_refused(own: FileKind, path: Path) -> None:
    """In a process of its own, because orbax leaves failing reads to a closed event loop."""
    own.write(path, make_contents(carried=own.carried))
    for file in path.rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    command = [sys.executable, "-m", "shared.convert", path, path.with_name("b.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "a.orbax: expected a complete checkpoint of orbax" in done.stderr
    (path / "_METADATA").write_text("{")
    with pytest.raises(InputError, match=r"a\.orbax: expected a complete checkpoint"):
        own.read(path)


def test_a_foreign_file_is_refused(own: FileKind, path: Path) -> None:
    if path.suffix == ".orbax":
        path.mkdir()
        (path / "notes.txt").write_text("hello")
    else:
        path.write_bytes(b"hello, this is no checkpoint")
    with pytest.raises(InputError, match=r"a\.\w+.* expected"):
        own.read(path)
