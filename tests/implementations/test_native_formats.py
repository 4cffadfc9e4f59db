"""Each framework's own files: every bit survives, its loader reads them, nothing else passes."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from shared.convert.file_kinds import FILE_KINDS, FileKind, kind_of
from shared.convert.native_contents import (
    NativeContents,
    closest_network,
    infer_spec,
    part_shapes,
    parts_of,
)
from shared.convert.verification import verification_inputs
from shared.files.atomic import staged
from shared.files.checkpoint import CheckpointError
from shared.fixtures.make_network import representative_state
from shared.interface import Implementation
from shared.reference.network import forward
from shared.spec import NETWORKS, SYSTEMS, Conventions, NetworkName, SystemSpec

WIDTH = 2
PROGRESS = {"step": 3, "seed": 7, "dtype": "float32", "dataset": "digits"}
NAMES = {"pytorch": "a.pth", "tf": "a.weights.h5", "jax": "a.orbax"}


def narrow(system: str = "dcgan64", **changes: object) -> SystemSpec:
    """Return a small system, in colour: mlp28's pixels have an order only with channels."""
    sizes = {"width": WIDTH, "latent_dim": 5, "batch_size": 3, "channels": 3}
    return SYSTEMS[system].replace(**{**sizes, **changes})


def make_contents(
    spec: SystemSpec | None = None, dtype: str = "float32", carried: tuple[str, ...] | None = None
) -> NativeContents:
    """Return a state with values that a lossy path would change; only the parts of `carried`."""
    spec = spec or narrow()
    shapes = part_shapes(spec, carried or parts_of(representative_state(spec, 0)))
    state = representative_state(spec, 0)
    arrays = {n: state[n] if n.endswith("/step") else state[n].astype(dtype) for n in shapes}
    if dtype == "float64":  # numbers that float32 has not
        arrays = {n: a if a.dtype != dtype else a * (1 + 2.0**-40) for n, a in arrays.items()}
    keeps_progress = carried is None or "progress" in carried
    return NativeContents(arrays, spec, PROGRESS if keeps_progress else None)


@pytest.fixture
def own(implementation: Implementation) -> FileKind:
    """The format of each framework."""
    return kind_of(Path(NAMES[implementation.name]))


@pytest.fixture
def path(implementation: Implementation, tmp_path: Path) -> Path:
    return tmp_path / NAMES[implementation.name]


def require_same(read: NativeContents, meant: NativeContents) -> None:
    assert list(read.arrays) == list(meant.arrays)
    for name, array in meant.arrays.items():
        assert read.arrays[name].dtype == array.dtype, name
        assert read.arrays[name].shape == array.shape, name
        assert read.arrays[name].tobytes() == array.tobytes(), name


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_frameworks_own_loader_gives_the_implementations_networks(
    own: FileKind, implementation: Implementation, path: Path, system: str, dtype: str
) -> None:
    """Around `read_native`: a layout that is wrong both ways would show here."""
    everything = make_contents(narrow(system), dtype)
    state = implementation.create(everything.spec, dtype=dtype)
    implementation.import_state(state, everything.arrays)
    contents = make_contents(narrow(system), dtype, own.carried)
    own.write(path, contents)
    latents, images = verification_inputs(contents)
    outputs = own.run(path, contents, latents, images)
    for name, expected in (
        ("generator", implementation.generate(state, latents)),
        ("discriminator", implementation.discriminate(state, images)),
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
    outputs = own.run(path, read, *verification_inputs(contents))
    assert list(outputs) == [network]


@pytest.mark.parametrize("parts", [NETWORKS, *((network,) for network in NETWORKS)], ids=str)
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_system_is_read_off_the_shapes(
    implementation: Implementation, system: str, parts: tuple[NetworkName, ...]
) -> None:
    """Without a stored spec, and one network without its name in front."""
    names_of = importlib.import_module(f"{implementation.name}_impl.native_format").native_names
    for width, latent_dim, channels in ((1, 1, 1), (2, 7, 3), (8, 784, 1), (64, 62, 4)):
        spec = SYSTEMS[system].replace(width=width, latent_dim=latent_dim, channels=channels)
        expected = part_shapes(spec, parts)
        shapes = {n: expected[c] for n, c in names_of(spec).items() if c in expected}
        found = infer_spec(shapes, names_of)
        assert (found.width, found.channels) == (width, channels)
        if "generator" in parts:
            assert found.latent_dim == latent_dim
        # The two dcgan64 have the same generator.
        whole = "discriminator" in parts or not system.startswith("dcgan64")
        assert found.name == (system if whole else "dcgan64")
        if len(parts) == 1:
            bare = {n.removeprefix(f"{parts[0]}/"): shape for n, shape in shapes.items()}
            assert closest_network(bare, names_of) == parts[0]


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
            "expected every array as float32 or every array as float64",
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
    with pytest.raises(CheckpointError, match=message):
        own.write(path, contents)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("implementation", ["tf"], indirect=True)
def test_a_part_without_a_place_is_refused(own: FileKind, path: Path) -> None:
    contents = make_contents()
    with pytest.raises(CheckpointError, match=r"cannot carry generator_optimizer, .*progress"):
        own.write(path, contents)


@pytest.mark.parametrize("implementation", ["pytorch", "jax"], indirect=True)
def test_an_optimizer_without_its_network_is_refused(own: FileKind, path: Path) -> None:
    contents = make_contents(carried=("generator", "discriminator_optimizer"))
    with pytest.raises(CheckpointError, match="discriminator_optimizer without the network"):
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
    with pytest.raises(CheckpointError, match=f"{path.name}: expected a .*, found nothing"):
        own.read(path)


@pytest.mark.parametrize("implementation", ["pytorch", "tf"], indirect=True)
def test_a_damaged_file_is_refused(own: FileKind, path: Path) -> None:
    own.write(path, make_contents(carried=own.carried))
    whole = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(CheckpointError, match=path.name):
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
    with pytest.raises(CheckpointError, match=r"a\.orbax: expected a complete checkpoint"):
        own.read(path)


def test_a_foreign_file_is_refused(own: FileKind, path: Path) -> None:
    if path.suffix == ".orbax":
        path.mkdir()
        (path / "notes.txt").write_text("hello")
    else:
        path.write_bytes(b"hello, this is no checkpoint")
    with pytest.raises(CheckpointError, match=r"a\.\w+.*: expected"):
        own.read(path)


# --- PyTorch ---------------------------------------------------------------------------------


@pytest.fixture
def torch(request: pytest.FixtureRequest):
    module = pytest.importorskip("torch")
    module.set_num_threads(1)
    return module


def example_networks(torch, width: int, latent_dim: int, channels: int = 3):
    """Return the networks of pytorch/examples, dcgan/main.py, as they stand there."""
    nn = torch.nn
    generator, discriminator = nn.Module(), nn.Module()
    generator.main = nn.Sequential(
        nn.ConvTranspose2d(latent_dim, width * 8, 4, 1, 0, bias=False),
        nn.BatchNorm2d(width * 8),
        nn.ReLU(True),
        nn.ConvTranspose2d(width * 8, width * 4, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 4),
        nn.ReLU(True),
        nn.ConvTranspose2d(width * 4, width * 2, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 2),
        nn.ReLU(True),
        nn.ConvTranspose2d(width * 2, width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(True),
        nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False),
        nn.Tanh(),
    )
    discriminator.main = nn.Sequential(
        nn.Conv2d(channels, width, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width, width * 2, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 2),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width * 2, width * 4, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 4),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width * 4, width * 8, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 8),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width * 8, 1, 4, 1, 0, bias=False),
        nn.Sigmoid(),
    )
    return generator, discriminator


def conv28_networks(torch, width: int, latent_dim: int, channels: int = 3):
    """Return conv28 as somebody would write it who knows PyTorch and not this project."""
    nn = torch.nn
    generator, discriminator = nn.Module(), nn.Module()
    generator.main = nn.Sequential(
        nn.Linear(latent_dim, 16 * width),
        nn.BatchNorm1d(16 * width),
        nn.ReLU(),
        nn.Linear(16 * width, 2 * width * 7 * 7),
        nn.BatchNorm1d(2 * width * 7 * 7),
        nn.ReLU(),
        nn.Unflatten(1, (2 * width, 7, 7)),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, channels, 4, 2, 1),
        nn.Sigmoid(),
    )
    discriminator.main = nn.Sequential(
        nn.Conv2d(channels, width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(2 * width * 7 * 7, 16 * width),
        nn.BatchNorm1d(16 * width),
        nn.LeakyReLU(0.2),
        nn.Linear(16 * width, 1),
        nn.Sigmoid(),
    )
    return generator, discriminator


def mlp28_networks(torch, width: int, latent_dim: int, channels: int = 3):
    """Return mlp28 in the same way."""
    nn = torch.nn
    generator, discriminator = nn.Module(), nn.Module()
    generator.main = nn.Sequential(
        nn.Linear(latent_dim, width),
        nn.ReLU(),
        nn.Linear(width, 2 * width),
        nn.ReLU(),
        nn.Linear(2 * width, channels * 28 * 28),
        nn.Tanh(),
        nn.Unflatten(1, (channels, 28, 28)),
    )
    discriminator.main = nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * 28 * 28, 2 * width),
        nn.ReLU(),
        nn.Linear(2 * width, width),
        nn.ReLU(),
        nn.Linear(width, 1),
        nn.Sigmoid(),
    )
    return generator, discriminator


THIRD_PARTY = {"dcgan64": example_networks, "conv28": conv28_networks, "mlp28": mlp28_networks}


def outputs_of_third_party(torch, system: str, modules, latents, images) -> dict[str, np.ndarray]:
    """Run third-party networks by their running statistics; returns NHWC and [batch]."""
    generator, discriminator = (module.eval().main for module in modules)
    z = torch.from_numpy(latents)
    with torch.no_grad():
        made = generator(z[:, :, None, None] if system == "dcgan64" else z)
        scores = discriminator(torch.from_numpy(images).permute(0, 3, 1, 2))
    return {"generator": made.permute(0, 2, 3, 1).numpy(), "discriminator": scores[:, 0].numpy()}


def require_the_references_outputs(contents: NativeContents, outputs: dict) -> None:
    """Raise AssertionError unless float32 outputs are those of the NumPy networks."""
    inputs = dict(zip(NETWORKS, verification_inputs(contents), strict=True))
    arrays = {n: a.astype(np.float64) for n, a in contents.arrays.items()}
    for network in contents.networks:
        expected = forward(
            contents.spec, network, arrays, inputs[network], Conventions(), training=False
        ).output
        # Measured 2e-7; one array of one layer in a wrong order: 0.03 or more.
        np.testing.assert_allclose(outputs[network].reshape(expected.shape), expected, atol=1e-6)


def saved_pth(torch, path: Path, contents: NativeContents | None = None) -> dict:
    """Write a .pth and return what torch.load gives."""
    FILE_KINDS["torch"].write(path, contents or make_contents())
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("system", THIRD_PARTY)
def test_third_party_networks_load_a_pth(torch, tmp_path: Path, system: str) -> None:
    contents = make_contents(narrow(system, loss="bce_probs"))
    saved = saved_pth(torch, tmp_path / "a.pth", contents)
    modules = THIRD_PARTY[system](torch, WIDTH, 5)
    for network, module in zip(NETWORKS, modules, strict=True):
        module.load_state_dict(saved[network], strict=True)
    outputs = outputs_of_third_party(torch, system, modules, *verification_inputs(contents))
    require_the_references_outputs(contents, outputs)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("system", ["conv28", "mlp28"])
def test_third_party_bare_files_are_read(torch, tmp_path: Path, system: str, channels: int) -> None:
    torch.manual_seed(0)
    modules = THIRD_PARTY[system](torch, 3, 7, channels)
    modules[0].main(torch.rand(8, 7))  # moves the running statistics
    modules[1].main(torch.rand(8, channels, 28, 28))
    for network, module in zip(NETWORKS, modules, strict=True):
        torch.save(module.state_dict(), tmp_path / "net.pth")
        read = FILE_KINDS["torch"].read(tmp_path / "net.pth")
        assert (read.networks, read.spec_is_stored, read.spec.name) == ((network,), False, system)
        assert (read.spec.width, read.spec.channels) == (3, channels)
        assert network == "discriminator" or read.spec.latent_dim == 7
        contents = dataclasses.replace(read, spec=read.spec.replace(loss="bce_probs", latent_dim=7))
        outputs = outputs_of_third_party(torch, system, modules, *verification_inputs(contents))
        require_the_references_outputs(contents, outputs)


def test_the_examples_generator_loads_a_bare_pth(torch, tmp_path: Path) -> None:
    contents = make_contents(carried=("generator",))
    saved = saved_pth(torch, tmp_path / "netG.pth", contents)
    generator, _ = example_networks(torch, WIDTH, 5)
    generator.load_state_dict(saved, strict=True)
    mean = contents.arrays["generator/batch_norm_4/mean"]
    np.testing.assert_array_equal(generator.main[10].running_mean, mean)


def test_adam_of_pytorch_loads_its_part_of_a_pth(torch, tmp_path: Path) -> None:
    contents = make_contents()
    saved = saved_pth(torch, tmp_path / "a.pth", contents)
    generator, _ = example_networks(torch, WIDTH, 5)
    adam = torch.optim.Adam(generator.parameters(), lr=1.0)
    adam.load_state_dict(saved["generator_optimizer"])
    assert adam.param_groups[0]["lr"] == 2e-4
    assert adam.param_groups[0]["betas"] == (0.5, 0.999)
    moments = adam.state[generator.main[12].weight]
    expected = contents.arrays["generator_optimizer/conv_transpose_5/kernel/v"]
    np.testing.assert_array_equal(moments["exp_avg_sq"], expected.transpose(3, 2, 0, 1))
    assert moments["step"] == contents.arrays["generator_optimizer/step"]


def test_adams_moments_are_in_the_order_of_the_parameters(torch, tmp_path: Path) -> None:
    """Both ways wrong would cancel on a round trip, and no network's output shows a moment."""
    contents = make_contents(narrow("conv28"))
    saved = saved_pth(torch, tmp_path / "a.pth", contents)
    for part, layer, prefix in (
        ("generator", "dense_2/kernel", "main.3.weight"),
        ("generator", "batch_norm_2/scale", "main.4.weight"),
        ("discriminator", "dense_3/kernel", "main.6.weight"),
    ):
        module = conv28_networks(torch, WIDTH, 5)[NETWORKS.index(part)]
        adam = torch.optim.Adam(module.parameters())
        adam.load_state_dict(saved[f"{part}_optimizer"])
        moment = adam.state[dict(module.named_parameters())[prefix]]["exp_avg"].numpy()
        expected = contents.arrays[f"{part}_optimizer/{layer}/m"]
        if part == "discriminator":  # (49 · channels, out) → (out, channels · 49)
            image = expected.reshape(7, 7, 2 * WIDTH, -1)
            expected = image.transpose(3, 2, 0, 1).reshape(16 * WIDTH, -1)
        else:  # the features are the last axis
            image = expected.reshape(-1, 7, 7, 2 * WIDTH)
            expected = image.transpose(3, 1, 2, 0).reshape(moment.shape)
        np.testing.assert_array_equal(moment, expected, err_msg=layer)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_bare_file_of_the_example_is_read(torch, tmp_path: Path, network, legacy) -> None:
    module = example_networks(torch, 3, 7, channels=1)[NETWORKS.index(network)]
    module.main(torch.randn(2, 7, 1, 1) if network == "generator" else torch.randn(2, 1, 64, 64))
    path = tmp_path / "net_epoch_0.pth"
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    read = FILE_KINDS["torch"].read(path)
    assert read.networks == (network,)
    assert not read.spec_is_stored
    assert (read.spec.width, read.spec.channels, read.spec.name) == (3, 1, "dcgan64")
    assert network == "discriminator" or read.spec.latent_dim == 7
    layers = {"generator": "conv_transpose_5", "discriminator": "conv_5"}
    kernel = read.arrays[f"{network}/{layers[network]}/kernel"]
    own = module.main[12 if network == "generator" else 11].weight
    np.testing.assert_array_equal(kernel, own.detach().permute(2, 3, 1, 0))
    (note,) = read.notes
    assert "num_batches_tracked" in note


def test_settings_of_adam_are_read_where_no_spec_is_stored(torch, tmp_path: Path) -> None:
    saved = saved_pth(torch, tmp_path / "a.pth")
    saved = {name: value for name, value in saved.items() if not isinstance(value, str)}
    saved["generator_optimizer"]["param_groups"][0]["lr"] = 0.125
    torch.save(saved, tmp_path / "b.pth")
    read = FILE_KINDS["torch"].read(tmp_path / "b.pth")
    require_same(read, make_contents())
    assert read.spec.generator_optimizer.learning_rate == 0.125
    assert read.progress is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, t: s["generator"].pop("main.1.running_mean"), "missing: generator/main.1.runn"),
        (
            lambda s, t: s["generator"].update({"main.14.weight": t.zeros(1)}),
            "unexpected: generator/main.14.weight",
        ),
        (
            lambda s, t: s["generator"].update({"main.0.weight": t.zeros(5, 16, 3, 3)}),
            r"generator/main.0.weight \(5, 16, 3, 3\) instead of \(5, 16, 4, 4\)",
        ),
        (
            lambda s, t: s["generator"].update({"main.0.weight": t.zeros(3)}),
            r"generator/main.0.weight \(3,\) instead of \(5, 16, 4, 4\)",
        ),
        (lambda s, t: s.update(epoch=3), "unexpected: epoch"),
        (lambda s, t: s.update(epoch="three"), "expected epoch as torch.float32.*found str"),
        (
            lambda s, t: s["generator"].update({"main.0.weight": t.zeros(2, dtype=t.bfloat16)}),
            "expected generator/main.0.weight as torch.float32.*found torch.bfloat16",
        ),
        (
            lambda s, t: s["generator_optimizer"]["state"][0].update(max_exp_avg_sq=t.zeros(1)),
            "unexpected: generator_optimizer/state/0/max_exp_avg_sq",
        ),
        (
            lambda s, t: s["generator_optimizer"]["state"][1].update(step=t.tensor(1.0)),
            "expected one whole number as generator_optimizer/step",
        ),
        (
            lambda s, t: s["generator_optimizer"]["param_groups"][0].update(weight_decay=0.1),
            "expected plain Adam",
        ),
        (
            lambda s, t: s["generator_optimizer"]["param_groups"][0].update(lr=0.5),
            "its optimizers and its spec disagree: generator_optimizer.learning_rate: 0.5",
        ),
        (lambda s, t: s["generator_optimizer"].pop("param_groups"), "state_dict of torch.optim"),
        (lambda s, t: s.update(spec="{}"), "the spec in the header is not valid"),
        (lambda s, t: s.update(format_version="9"), "expected the format_version '1', found '9'"),
        (lambda s, t: s.update(progress='{"step": -1}'), "number of completed steps"),
    ],
)
def test_a_pth_is_read_strictly(torch, tmp_path: Path, change, message: str) -> None:
    saved = saved_pth(torch, tmp_path / "a.pth")
    change(saved, torch)
    torch.save(saved, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=message):
        FILE_KINDS["torch"].read(tmp_path / "b.pth")


class _Malicious:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return os.system, (f"touch {self.victim}",)


@pytest.mark.parametrize("how", ["torch.save", "pickle", "module"])
def test_a_pickle_that_runs_code_is_refused(torch, tmp_path: Path, how: str) -> None:
    path, victim = tmp_path / "a.pth", tmp_path / "victim"
    if how == "torch.save":
        torch.save(OrderedDict({"main.0.weight": _Malicious(victim)}), path)
    elif how == "pickle":
        path.write_bytes(pickle.dumps(_Malicious(victim)))
    else:
        torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(CheckpointError, match="refused, because it holds more than tensors"):
        FILE_KINDS["torch"].read(path)
    assert not victim.exists()


@pytest.mark.parametrize("value", [[1, 2], {1: 2}], ids=["list", "numbered"])
def test_a_pth_without_names_is_refused(torch, tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="expected a dict of names"):
        FILE_KINDS["torch"].read(tmp_path / "a.pth")


# --- Keras -----------------------------------------------------------------------------------


KERAS_ONLY = pytest.mark.parametrize("implementation", ["tf"], indirect=True)


@KERAS_ONLY
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
@pytest.mark.parametrize("system", ["dcgan64-lsgan", "conv28", "mlp28"])
def test_a_file_that_keras_saved_is_read(
    implementation: Implementation, tmp_path: Path, system: str
) -> None:
    from tf_impl.native_format import Networks

    contents = make_contents(narrow(system), "float64")
    state = implementation.create(contents.spec, dtype="float64")
    implementation.import_state(state, contents.arrays)
    path = tmp_path / "both.weights.h5"
    Networks(generator=state.generator, discriminator=state.discriminator).save_weights(path)
    weights = make_contents(narrow(system), "float64", NETWORKS)
    read = FILE_KINDS["keras"].read(path)
    require_same(read, weights)
    # batch_size is not in the shapes.
    assert read.spec == weights.spec.replace(batch_size=read.spec.batch_size)
    for network in NETWORKS:
        getattr(state, network).save_weights(tmp_path / "one.weights.h5")
        read = FILE_KINDS["keras"].read(tmp_path / "one.weights.h5")
        require_same(read, make_contents(weights.spec, "float64", (network,)))


@KERAS_ONLY
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.__delitem__("generator/batch_norm_1/vars/2"), "missing: generator/batch_norm"),
        (lambda f: f.create_dataset("generator/x/vars/0", data=[1.0]), "unexpected: generator/x/v"),
        (lambda f: f.create_dataset("optimizer/vars/0", data=[1.0]), "unexpected: optimizer/vars"),
        (
            lambda f: (
                f.pop("generator/batch_norm_1/vars/2"),
                f.create_dataset("generator/batch_norm_1/vars/2", data=[1.0]),
            ),
            r"generator/batch_norm_1/vars/2 \(1,\) instead of \(16,\)",
        ),
        (
            lambda f: f.create_dataset(
                "generator/x", (4,), "u1", external=[("/etc/hostname", 0, 4)]
            ),
            "expected generator/x in the file, found a link",
        ),
    ],
    ids=["missing", "unexpected", "optimizer", "wrong shape", "external"],
)
def test_a_weights_h5_is_read_strictly(
    implementation: Implementation, tmp_path: Path, change, message: str
) -> None:
    import h5py

    keras = FILE_KINDS["keras"]
    path = tmp_path / "a.weights.h5"
    keras.write(path, make_contents(carried=keras.carried))
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(CheckpointError, match=message):
        keras.read(path)


@KERAS_ONLY
def test_a_model_of_keras_loads_its_bare_file(
    own: FileKind, implementation: Implementation, tmp_path: Path
) -> None:
    contents = make_contents(carried=("generator",))
    own.write(tmp_path / "g.weights.h5", contents)
    generator = implementation.create(narrow(), seed=1).generator
    generator.load_weights(tmp_path / "g.weights.h5")
    for name, array in contents.arrays.items():
        _, layer, parameter = name.split("/")
        loaded = getattr(getattr(generator, layer), parameter).numpy()
        np.testing.assert_array_equal(loaded, array, err_msg=name)


# --- Flax ------------------------------------------------------------------------------------


JAX_ONLY = pytest.mark.parametrize("implementation", ["jax"], indirect=True)


@JAX_ONLY
@pytest.mark.parametrize("system", ["dcgan64", "conv28", "mlp28"])
def test_a_folder_that_flax_saved_is_read(
    implementation: Implementation, tmp_path: Path, system: str
) -> None:
    import jax
    import orbax.checkpoint as ocp
    from flax import nnx

    state = implementation.create(narrow(system), dtype="float64")
    first = next(iter(state.spec.parameters("discriminator"))).split("/")[1]
    with jax.enable_x64(True):
        models = {n: state.settings.merge(state.arrays).network(n) for n in NETWORKS}
        trees = {
            "state": {name: nnx.state(model) for name, model in models.items()},
            "pure": nnx.to_pure_dict(nnx.state(models["discriminator"])),
        }
        with ocp.StandardCheckpointer() as checkpointer:
            for name, tree in trees.items():
                checkpointer.save(tmp_path / name, tree)
        kernel = np.array(getattr(models["discriminator"], first).kernel[...])
    orbax = FILE_KINDS["orbax"]
    for name, held in (("state", NETWORKS), ("pure", ("discriminator",))):
        read = orbax.read(tmp_path / name)
        assert (read.networks, read.dtype, read.spec_is_stored) == (held, "float64", False)
        assert read.spec.name == system
        np.testing.assert_array_equal(read.arrays[f"discriminator/{first}/kernel"], kernel)
        orbax.run(tmp_path / name, read, *verification_inputs(read))


@JAX_ONLY
def test_a_bare_folder_is_the_tree_of_one_network(own: FileKind, tmp_path: Path) -> None:
    import orbax.checkpoint as ocp

    contents = make_contents(carried=("generator",))
    own.write(tmp_path / "g.orbax", contents)
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "g.orbax")
    expected = contents.arrays["generator/batch_norm_4/mean"]
    np.testing.assert_array_equal(restored["batch_norm_4"]["mean"], expected)


@JAX_ONLY
def test_optax_takes_the_optimizer_of_a_folder(
    implementation: Implementation, tmp_path: Path
) -> None:
    import optax
    import orbax.checkpoint as ocp

    contents = make_contents()
    FILE_KINDS["orbax"].write(tmp_path / "a.orbax", contents)
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "a.orbax")
    state = optax.ScaleByAdamState(**restored["generator_optimizer"])
    assert state.count == contents.arrays["generator_optimizer/step"]
    expected = contents.arrays["generator_optimizer/batch_norm_2/scale/v"]
    np.testing.assert_array_equal(state.nu["batch_norm_2"]["scale"], expected)


@JAX_ONLY
def test_an_orbax_folder_is_read_strictly(implementation: Implementation, tmp_path: Path) -> None:
    import orbax.checkpoint as ocp

    tree = {
        "generator": {"conv_transpose_1": {"kernel": np.zeros((4, 4, 16, 5), "f4")}},
        "x": {"y": np.zeros(2)},
    }
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "a.orbax", tree, custom_metadata={"author": "somebody"})
    with pytest.raises(
        CheckpointError, match=r"missing: .*generator/batch_norm_1.*unexpected: x/y"
    ):
        FILE_KINDS["orbax"].read(tmp_path / "a.orbax")


def test_the_description_stands_beside_the_arrays(torch, tmp_path: Path) -> None:
    saved = saved_pth(torch, tmp_path / "a.pth")
    assert json.loads(saved["progress"]) == PROGRESS
    assert SystemSpec.from_dict(json.loads(saved["spec"])) == narrow()
