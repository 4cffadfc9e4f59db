"""Files of PyTorch: networks of others load them, theirs are read, and nothing in them runs."""

import dataclasses
import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from shared.convert.__main__ import verification_inputs
from shared.files.errors import InputError
from shared.formats.file_kinds import FILE_KINDS
from shared.formats.native_contents import Contents
from shared.spec import NETWORKS, SystemSpec
from tests.implementations.native_files import PROGRESS, WIDTH, make_contents, narrow, require_same
from tests.implementations.third_party_networks import (
    THIRD_PARTY,
    conv28_networks,
    example_networks,
    outputs_of_third_party,
    require_the_references_outputs,
)


@pytest.fixture
def torch(request: pytest.FixtureRequest):
    module = pytest.importorskip("torch")
    module.set_num_threads(1)
    return module


def saved_pth(torch, path: Path, contents: Contents | None = None) -> dict:
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
    outputs = outputs_of_third_party(torch, system, modules, verification_inputs(contents))
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
        outputs = outputs_of_third_party(torch, system, modules, verification_inputs(contents))
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
    assert read.progress == {}


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
        (lambda s, t: s.update(spec="{}"), "expected a valid spec as JSON"),
        (lambda s, t: s.update(format_version="9"), "expected the format_version '1', found '9'"),
        (lambda s, t: s.update(progress='{"step": -1}'), "number of completed steps"),
    ],
)
def test_a_pth_is_read_strictly(torch, tmp_path: Path, change, message: str) -> None:
    saved = saved_pth(torch, tmp_path / "a.pth")
    change(saved, torch)
    torch.save(saved, tmp_path / "b.pth")
    with pytest.raises(InputError, match=message):
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
    with pytest.raises(InputError, match="refused, because it holds more than tensors"):
        FILE_KINDS["torch"].read(path)
    assert not victim.exists()


@pytest.mark.parametrize("value", [[1, 2], {1: 2}], ids=["list", "numbered"])
def test_a_pth_without_names_is_refused(torch, tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "a.pth")
    with pytest.raises(InputError, match="expected a dict of names"):
        FILE_KINDS["torch"].read(tmp_path / "a.pth")


def test_the_description_stands_beside_the_arrays(torch, tmp_path: Path) -> None:
    saved = saved_pth(torch, tmp_path / "a.pth")
    assert json.loads(saved["progress"]) == PROGRESS
    assert SystemSpec.from_dict(json.loads(saved["spec"])) == narrow()
