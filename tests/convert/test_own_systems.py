"""Files of networks that are no system here, by a system file; each framework runs them itself.

The networks are strangers' own, and their framework makes the images and scores, before and after.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from shared.formats.file_kinds import FILE_KINDS, kind_of
from shared.formats.native_contents import ASKED
from shared.spec import NETWORKS
from tests.convert.converted_files import SUFFIX, needs, run
from tests.implementations.modules_of_others import PARTS
from tests.implementations.test_module_pair import DISCRIMINATOR, GENERATOR

KINDS = {"pytorch": "torch", "tf": "keras", "jax": "orbax"}
LAYERS = {
    "generator": ("dense_1", "batch_norm_1", "conv_transpose_2"),
    "discriminator": ("conv_1", "conv_2", "batch_norm_2", "dense_3"),
}
NAMES = {
    "torch": {"generator": ("project", "norm", "up.0"), "discriminator": "0236"},
    "keras": {
        "generator": ("layers/dense", "layers/batch_normalization", "layers/conv2d_transpose"),
        "discriminator": [
            f"layers/{n}" for n in ("conv2d", "conv2d_1", "batch_normalization", "dense")
        ],
    },
    "orbax": {
        "generator": ("project", "norm", "up"),
        "discriminator": ("blocks/0", "blocks/1/layers/0", "blocks/1/layers/1", "score"),
    },
}
TABLE = {
    kind: {n: dict(zip(LAYERS[n], own[n], strict=True)) for n in NETWORKS}
    for kind, own in NAMES.items()
}
DRAW = np.random.default_rng(0)
INPUTS = DRAW.standard_normal((3, 6)), DRAW.uniform(-1, 1, (3, 8, 8, 3))
INPUTS = dict(zip(NETWORKS, (x.astype("f4") for x in INPUTS), strict=True))


@pytest.fixture
def system(tmp_path: Path) -> Path:
    return written(tmp_path / "mine.toml")


def written(path: Path, **changes: Any) -> Path:
    document = {"name": "mine", "image_size": 8, "channels": 3, "latent_dim": 6, "loss": "bce"}
    layers = {"generator": {"layers": GENERATOR}, "discriminator": {"layers": DISCRIMINATOR}}
    path.write_text(tomli_w.dumps(document | layers | {"names": TABLE} | changes))
    return path


def network_of(framework: str, name: str) -> Any:
    """Return one of a stranger's networks, with statistics that have moved."""
    network = PARTS[framework]()[NETWORKS.index(name)]
    made(framework, network, name, training=True)
    return network


def made(framework: str, network: Any, name: str, *, training: bool = False) -> np.ndarray:
    """Return the images or scores of a network in its own framework, images as NHWC."""
    x = INPUTS[name]
    if framework == "pytorch":
        import torch

        with torch.no_grad():
            y = network.train(training)(torch.from_numpy(x).movedim(-1, 1).contiguous())
        return (y.movedim(1, -1) if y.ndim == 4 else y).numpy()
    if framework == "tf":
        return network(x, training=training).numpy()
    network.train() if training else network.eval()
    return np.array(network(x))


def save(framework: str, network: Any, path: Path) -> None:
    if framework == "pytorch":
        import torch

        torch.save(network.state_dict(), path)
    elif framework == "tf":
        network.save_weights(path)
    else:
        import orbax.checkpoint as ocp
        from flax import nnx

        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, nnx.state(network, (nnx.Param, nnx.BatchStat)))


def load(framework: str, network: Any, path: Path) -> None:
    if framework == "pytorch":
        import torch

        network.load_state_dict(torch.load(path))
    elif framework == "tf":
        network.load_weights(path)
    else:
        import orbax.checkpoint as ocp
        from flax import nnx

        with ocp.StandardCheckpointer() as checkpointer:
            own = nnx.to_pure_dict(nnx.state(network, (nnx.Param, nnx.BatchStat)))
            nnx.update(network, checkpointer.restore(path, own))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("order", ["pytorch tf", "tf jax", "jax pytorch"])
def test_a_network_goes_to_another_framework(tmp_path, system, order, name, capsys) -> None:
    kinds = [KINDS[framework] for framework in order.split()]
    needs(*kinds)
    first, second = (network_of(framework, name) for framework in order.split())
    paths = [tmp_path / f"{kind}{SUFFIX[kind]}" for kind in kinds]
    save(order.split()[0], first, paths[0])
    assert run(*paths, "--system", system) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert f"{name} in float32, spec of --system: mine" in shown
    assert "written and read back, every bit the same" in shown
    load(order.split()[1], second, paths[1])
    before, after = (made(*x, name) for x in zip(order.split(), (first, second), strict=True))
    np.testing.assert_allclose(after, before, atol=1e-6)  # values up to 1; a turned kernel: 0.1
    assert np.abs(before).max() > 1e-3


def test_names_are_read_off_where_the_file_has_none(tmp_path, capsys) -> None:
    torch = pytest.importorskip("torch")
    network = network_of("pytorch", "discriminator")
    torch.save({"netD": network.state_dict()}, tmp_path / "d.pth")
    system = written(tmp_path / "plain.toml", names={})
    assert run("--inspect", tmp_path / "d.pth", "--system", system) == 0
    assert "next: python -m shared.convert" in capsys.readouterr().out
    assert run(tmp_path / "d.pth", tmp_path / "own.pt", "--system", system) == 0
    own = torch.load(tmp_path / "own.pt")
    given = network.state_dict()
    assert [*own][:3] == ["main.0.weight", "main.0.bias", "main.2.weight"]
    for name in (name for name in given if "tracked" not in name):
        torch.testing.assert_close(own[f"main.{name}"], given[name], rtol=0, atol=0)


def test_a_folder_of_orbax_is_found_by_a_relative_name(tmp_path, capsys, monkeypatch) -> None:
    pytest.importorskip("flax")
    save("jax", network_of("jax", "generator"), tmp_path / "g.orbax")
    monkeypatch.chdir(tmp_path)
    system = written(tmp_path / "mine.toml")
    assert run("--inspect", "g.orbax", "--system", system) == 0
    assert "project/kernel" in capsys.readouterr().out
    nameless = written(tmp_path / "nameless.toml", names={})
    assert run("g.orbax", "own.pt", "--system", nameless) == 2
    wanted = "g.orbax: what it holds, by the names of --system's file, does not"
    assert wanted in capsys.readouterr().err


MISTAKES = [
    ({"names": {"torch": {"generator": {"conv_9": "up"}}}}, "names.torch.generator.conv_9 is no l"),
    ({"names": {"onnx": {}}}, "names: Additional properties are not allowed ('onnx' was"),
    ({"names": {"torch": {"generator": {"dense_1": 1}}}}, "names.torch.generator.dense_1: 1 is no"),
    ({"generator": {"layers": [GENERATOR[0] | {"features": 256}, *GENERATOR[1:]]}}, "project"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_one_line_names_the_mistake(tmp_path, changes, message, capsys) -> None:
    torch = pytest.importorskip("torch")
    torch.save(PARTS["pytorch"]()[0].state_dict(), tmp_path / "g.pth")
    system = written(tmp_path / "mine.toml", **changes)
    assert run(tmp_path / "g.pth", tmp_path / "own.pt", "--system", system) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "own.pt").exists()


def test_there_is_no_checkpoint_of_it_and_no_other_file_is_taken_for_one(
    tmp_path, system, capsys
) -> None:
    torch = pytest.importorskip("torch")
    torch.save(PARTS["pytorch"]()[0].state_dict(), tmp_path / "g.pth")
    assert run(tmp_path / "g.pth", tmp_path / "g.safetensors", "--system", system) == 2
    assert "a system of a file has no checkpoints: write a file" in capsys.readouterr().err
    assert run(tmp_path / "g.pth", tmp_path / "own.pt") == 2  # nobody has said what it is
    assert "convolutions, where the" in capsys.readouterr().err
    assert ASKED.get() is None
    assert run(tmp_path / "g.pth", tmp_path / "own.pt", "--system", "dcgan") == 2
    assert "unknown system 'dcgan'" in capsys.readouterr().err
    assert FILE_KINDS["torch"] is kind_of(tmp_path / "g.pth")
