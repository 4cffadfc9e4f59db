"""Networks under the names that Keras 1 to 3 and TensorFlow 1 and 2 give: all arrays in place."""

from pathlib import Path

import numpy as np
import pytest

from shared.files.errors import InputError
from shared.fixtures.network import representative_state
from shared.formats.keras_names import read_foreign
from shared.spec import SYSTEMS

ENDS = {
    "keras 1": ("W", "b", "gamma", "beta", "running_mean", "running_std"),
    "keras 2": ("kernel:0", "bias:0", "gamma:0", "beta:0", "moving_mean:0", "moving_variance:0"),
    "keras 3": ("vars/0", "vars/1", "vars/0", "vars/1", "vars/2", "vars/3"),
    "tf 1": ("Matrix", "biases", "gamma", "beta", "moving_mean", "moving_variance"),
    "tf 2": ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"),
}
LAYERS = {
    "keras 1": "{kind}_{n}/{kind}_{n}_",
    "keras 2": "model_weights/{kind}_{n}/{kind}_{n}/",
    "keras 3": "layers/{kind}_{n}/",
    "tf 1": "{network}/g_{kind}{n}/",
    "tf 2": "{network}/_functional/_operations/{n}/",
}
CLASSES = {"conv": "conv2d", "conv_transpose": "conv2d_transpose", "batch_norm": "batchnorm"}


def named(scheme, spec, network):
    """Return arrays by a scheme's names, in alphabetical order, and by their canonical ones."""
    state = representative_state(spec, 0)
    kernel, bias, *norm = ENDS[scheme]
    ends = {"kernel": kernel, "bias": bias}
    made, meant, counts = {}, {}, {}
    for number, layer in enumerate(spec.layers(network)):
        kind = CLASSES.get(layer.kind, layer.kind)
        counts[kind] = counts.get(kind, 0) + 1
        n = number if scheme == "tf 2" else counts[kind]
        stem = LAYERS[scheme].format(kind=kind, n=n, network=network)
        if layer.kind == "batch_norm":
            ends |= dict(zip(("scale", "bias", "mean", "var"), norm, strict=True))
        else:
            ends["bias"] = bias
        for parameter in layer.parameters:
            name = f"{network}/{layer.name}/{parameter.name}"
            end = f"{ends[parameter.name]}{'/.ATTRIBUTES/VARIABLE_VALUE' * (scheme == 'tf 2')}"
            meant[name] = made[stem + end] = state[name]
    natural = {name: made[name] for name in sorted(made, key=lambda name: (len(name), name))}
    return natural, meant


@pytest.mark.parametrize("network", ["generator", "discriminator"])
@pytest.mark.parametrize("system", ["dcgan64", "conv28"])
@pytest.mark.parametrize("scheme", ENDS)
def test_every_array_is_put_in_its_place(scheme, system, network):
    spec = SYSTEMS[system].replace(width=2, latent_dim=5)
    arrays, meant = named(scheme, spec, network)
    extra = {"tf 1": {"beta1_power": np.float32(0.5), "generator/g_dense1/Matrix/Adam": np.ones(2)},
             "tf 2": {"save_counter/.ATTRIBUTES/VARIABLE_VALUE": np.int64(1)},
             "keras 3": {"optimizer/vars/0": np.int64(3),
                         "layers/dropout/seed_generator/vars/0": np.zeros(2, np.uint32)},
             }.get(scheme, {})  # fmt: skip
    contents = read_foreign(Path("a.h5"), arrays | extra)
    assert list(contents.arrays) == list(meant)
    for name, array in meant.items():
        np.testing.assert_array_equal(contents.arrays[name], array, err_msg=name)
    assert (contents.spec.name, contents.spec.width) == (system, 2)
    notes = " ".join(contents.notes)
    assert "the epsilon of its BN" in notes
    assert not extra or f"{len(extra)} arrays of no layer ({min(extra, key=len)}" in notes


def test_both_networks_of_one_checkpoint():
    spec = SYSTEMS["dcgan64"].replace(width=2, latent_dim=5)
    halves = [named("tf 1", spec, network) for network in ("generator", "discriminator")]
    contents = read_foreign(Path("a"), halves[0][0] | halves[1][0])
    meant = halves[0][1] | halves[1][1]
    assert list(contents.arrays) == list(meant)
    assert all(np.array_equal(contents.arrays[name], meant[name]) for name in meant)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"variables/0": np.zeros(3, "f4")},
            r"a: expected arrays with the names of a layer's \(kernel, .* found variables/0",
        ),
        (
            {f"layers/conv2d_{n}/vars/0": np.zeros((5, 5, 2, 2), "f4") for n in range(9)},
            r"9 convolutions, where the \w+ of dcgan64 has 7 \(images of 256x256\)",
        ),
        (
            {f"dense_{n}/kernel": np.zeros((2, 2), "f4") for n in range(3)},
            r"dense_1.weight \(2, 2\), where the generator of mlp28 has dense_1.bias with 1 axes",
        ),
    ],
)
def test_what_has_no_place_is_named(arrays, message):
    with pytest.raises(InputError, match=message):
        read_foreign(Path("a"), arrays)
