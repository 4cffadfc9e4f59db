"""state_dicts as others save them: wrapped, under other names, in other files; what has no place.

The truth is the state_dict that PyTorch itself gave, in the layout of pytorch/examples.
"""

import json
import re
import zipfile

import numpy as np
import pytest

from shared.formats.file_kinds import kind_of
from shared.formats.state_dicts import part_of
from tests.convert.converted_files import checkpoint, run
from tests.implementations.third_party_networks import THIRD_PARTY

WIDTH, LATENT = 3, 5


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def pair(torch):
    """A generator and a discriminator with running statistics and Adams that have moved."""
    torch.manual_seed(0)
    networks = THIRD_PARTY["dcgan64"](torch, WIDTH, LATENT)
    adams = [torch.optim.Adam(n.parameters(), 2e-4, (0.5, 0.999)) for n in networks]
    generator, discriminator = (network.main for network in networks)
    discriminator(generator(torch.randn(4, LATENT, 1, 1))).mean().backward()
    for adam in adams:
        adam.step()
    return networks, adams


def renamed(state, change):
    return {change(name): tensor for name, tensor in state.items()}


def by_attributes(name):
    """Names as of a module whose layers are attributes: conv0.weight, norm1.running_mean."""
    _, index, last = name.split(".")
    return f"block{index}.layer.{last}"


def bundle(torch, g, d, adams):
    return {
        "epoch": 3,
        "netG": g,
        "netD": d,
        "optimizerG": adams[0].state_dict(),
        "optimizerD": adams[1].state_dict(),
    }


WRAPPED = {
    "data parallel": lambda torch, g, d, adams: renamed(g, "module.{}".format),
    "compiled": lambda torch, g, d, adams: renamed(g, "_orig_mod.module.{}".format),
    "attributes": lambda torch, g, d, adams: renamed(g, by_attributes),
    "under a key": lambda torch, g, d, adams: {"epoch": 1, "model_state_dict": g, "loss": [1.0]},
    "an EMA alone": lambda torch, g, d, adams: {"g_ema": g},
    "an EMA beside it": lambda torch, g, d, adams: {
        "ema_g": {name: tensor + 1 for name, tensor in g.items()},
        "g": g,
    },
    "without counters": lambda torch, g, d, adams: {
        name: tensor for name, tensor in g.items() if not name.endswith("tracked")
    },
    "bundle": bundle,
    "lightning": lambda torch, g, d, adams: {
        "state_dict": renamed(g, "generator.{}".format) | renamed(d, "discriminator.{}".format),
        "hyper_parameters": {"lr": 0.1},
    },
    "half an Adam": lambda torch, g, d, adams: {
        "netG": g,
        "optG": adams[0].state_dict()
        | {"state": {i: s for i, s in adams[0].state_dict()["state"].items() if i > 0}},
    },
    "another optimizer": lambda torch, g, d, adams: {
        "G_state_dict": g,
        "D_state_dict": d,
        "opt_G": torch.optim.SGD([torch.zeros(1)], 0.1).state_dict(),
    },
}


def require_same_as(contents, network, state):
    """Compare with a state_dict, whose layers stand in the order of the canonical names."""
    names = [n for n in contents.arrays if n.startswith(f"{network}/")]
    own = [tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")]
    assert len(names) == len(own) > 10
    for name, tensor in zip(names, own, strict=True):
        array = tensor.numpy()
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        np.testing.assert_array_equal(contents.arrays[name], array, err_msg=name)


@pytest.mark.parametrize("how", WRAPPED)
def test_wrapped_networks_are_found(torch, pair, tmp_path, how):
    (g, d), adams = pair
    saved = WRAPPED[how](torch, g.state_dict(), d.state_dict(), adams)
    path = tmp_path / "file.ckpt"  # the name tells nothing
    torch.save(saved, path, _use_new_zipfile_serialization=how != "compiled")
    contents = kind_of(path).read(path)
    require_same_as(contents, "generator", g.state_dict())
    if "discriminator" in contents.networks:
        require_same_as(contents, "discriminator", d.state_dict())
    has_both = how in ("bundle", "lightning", "another optimizer")
    assert len(contents.networks) == 1 + has_both
    assert ("generator_optimizer" in contents.parts) == (how == "bundle")
    notes = " ".join(contents.notes)
    for left in {"bundle": ["epoch"], "an EMA beside it": ["ema_g"], "another optimizer": ["gen"],
                 "under a key": ["epoch", "loss"]}.get(how, []):  # fmt: skip
        assert left in notes


def test_adams_moments_come_with_a_bundle(torch, pair, tmp_path, capsys):
    (g, d), adams = pair
    torch.save(bundle(torch, g.state_dict(), d.state_dict(), adams), tmp_path / "all.pt")
    target = tmp_path / "all.safetensors"
    assert run(tmp_path / "all.pt", target) == 0  # which runs both networks
    assert "left behind: epoch, for which there is no place" in capsys.readouterr().out
    arrays = kind_of(target).read(target).arrays
    first = adams[0].state_dict()["state"][0]["exp_avg"].numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(arrays["generator_optimizer/conv_transpose_1/kernel/m"], first)
    assert arrays["generator_optimizer/step"] == 1


def test_safetensors_of_others(torch, pair, tmp_path):
    from safetensors.torch import save_file

    (g, _), _ = pair
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(renamed(g.state_dict(), "net.{}".format), path)  # sorts net.main.10 before net.main.3
    require_same_as(kind_of(path).read(path), "generator", g.state_dict())


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_of_an_index(torch, pair, tmp_path, capsys, kind):
    from safetensors.torch import save_file

    state = pair[0][0].state_dict()
    places = {name: f"model-0000{i % 2}.{kind}" for i, name in enumerate(state)}
    for file in set(places.values()):
        own = {name: state[name] for name in state if places[name] == file}
        (save_file if kind == "safetensors" else torch.save)(own, tmp_path / file)
    index = tmp_path / f"model.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    require_same_as(kind_of(index).read(index), "generator", state)
    for names, message in (
        (["../a.bin"], "names of other folders"),
        (["no.bin"], "no.bin, which is not beside"),
    ):
        index.write_text(json.dumps({"weight_map": dict(enumerate(names))}))
        assert run("--inspect", index) == 2
        assert message in capsys.readouterr().err


def spectral(torch, g, d):
    for layer in d.main:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.utils.spectral_norm(layer)
    return d.state_dict()


def spectral_by_parametrization(torch, g, d):
    return torch.nn.utils.parametrizations.spectral_norm(d.main[0]).state_dict()


def with_biases(torch, g, d):
    layers = [
        torch.nn.ConvTranspose2d(m.in_channels, m.out_channels, 4)
        if isinstance(m, torch.nn.ConvTranspose2d)
        else m
        for m in g.main
    ]
    return torch.nn.Sequential(*layers).state_dict()


def larger(torch, g, d, more=3):
    layers = list(g.main)[:-2]
    for _ in range(more):
        up = torch.nn.ConvTranspose2d(WIDTH, WIDTH, 4, bias=False)
        layers += [up, torch.nn.BatchNorm2d(WIDTH)]
    return torch.nn.Sequential(*layers, *list(g.main)[-2:]).state_dict()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (spectral, r"spectral norm \(main.0.weight_orig\), which the discriminator of dcgan64"),
        (
            spectral_by_parametrization,
            r"spectral norm \(parametrizations.weight.original\).*remove_parametrizations and save",
        ),
        (with_biases, r"biases of convolutions \(0.bias …\), which the generator of dcgan64 has"),
        (
            larger,
            r"8 convolutions, where the generator of dcgan64 has 7 \(images of 256x256",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_has_no_place_is_named(torch, pair, tmp_path, capsys, make, message):
    (g, d), _ = pair
    path = tmp_path / "other.pth"
    torch.save(make(torch, g, d), path)
    assert run("--inspect", path) == 2
    shown = capsys.readouterr()
    assert re.search(message, shown.err)
    assert shown.err.count("\n") == 1
    first, kernel = shown.out.splitlines()[:2]
    assert first.startswith(f"{path}: ")
    assert first.endswith(" arrays, as torch has them")
    assert shown.out.splitlines()[-1].startswith("next: write down its system (docs/systems.md)")
    assert "weight" in kernel or "bias" in kernel
    assert run(path, tmp_path / "x.orbax") == 2
    assert f"--inspect {path}` lists the layers" in capsys.readouterr().err


def test_layers_of_128_pixels_with_other_widths_are_one_line(torch, pair, tmp_path, capsys):
    (g, d), _ = pair
    torch.save(larger(torch, g, d, more=1), tmp_path / "g.pth")
    assert run("--inspect", tmp_path / "g.pth") == 2
    error = capsys.readouterr().err
    assert "what it holds, nearest to dcgan64 of width" in error
    assert "wrong shape: generator/main.0.weight (5, 24, 4, 4) instead of (5, 16" in error
    assert error.count("\n") == 1


def test_inspect_says_what_a_file_is(torch, pair, tmp_path, capsys):
    (g, _), _ = pair
    path = tmp_path / "netG.pth"
    torch.save({"module." + name: tensor for name, tensor in g.state_dict().items()}, path)
    assert run("--inspect", path) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    assert ["module.main.0.weight", *["5", "x", "24", "x", "4", "x", "4"], "torch.float32"] in rows
    assert "generator in float32, spec read off the shapes: dcgan64, width 3, lat" in printed
    assert f"next: python -m shared.sample {path} --grid, " in printed


def test_layers_called_d1_are_no_discriminator(torch, tmp_path, capsys):
    torch.save({"d1.weight": torch.zeros(2, 2), "d2.bias": torch.zeros(2)}, tmp_path / "unet.pth")
    assert run("--inspect", tmp_path / "unet.pth") == 2
    assert "2 arrays, where the generator of mlp28 has 6" in capsys.readouterr().err


def test_a_dict_in_itself_and_odd_names(torch, tmp_path, capsys):
    inside = {"epoch": 3}
    inside["more"] = inside
    for saved, message in (
        (inside, "or damaged file (RecursionError"),
        ({"netG": {1: torch.zeros(2)}}, "0 convolutions, where the generator of"),
    ):
        torch.save(saved, tmp_path / "a.pth")
        assert run(tmp_path / "a.pth", tmp_path / "b.orbax") == 2
        assert message in capsys.readouterr().err


def test_the_content_says_what_a_file_is(torch, tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "model.bin", "w") as archive:
        archive.writestr("metadata.json", b"{}")  # as a whole model of Keras begins
    assert kind_of(tmp_path / "model.bin").name == "keras"
    (tmp_path / "a.bin").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    assert kind_of(tmp_path / "a.bin").name == "keras"
    (tmp_path / "other.zip").write_bytes(b"PK\x03\x04 nothing of ours")
    assert run(tmp_path / "other.zip", tmp_path / "b.pth") == 2
    assert "the name has no known ending" in capsys.readouterr().err
    own = checkpoint(tmp_path).rename(tmp_path / "renamed.bin")
    assert kind_of(own).name == "safetensors"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("netG", ("generator", False)),
        ("discriminator_state_dict", ("discriminator", False)),
        ("G_ema", ("generator", True)),
        ("optimizer_D_state_dict", ("discriminator_optimizer", False)),
        ("optG", ("generator_optimizer", False)),
        ("critic", ("discriminator", False)),
        ("grid", (None, False)),
        ("model", (None, False)),
    ],
)
def test_words_for_a_network(name, part):
    assert part_of(name) == part
