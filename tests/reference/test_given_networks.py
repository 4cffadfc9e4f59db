"""Networks of every kind of layer, given as data: the reference against finite differences."""

import dataclasses

import numpy as np
import pytest

from shared.fixtures.network import representative_state
from shared.reference.comparison import cancelled_biases
from shared.reference.network import backward, forward
from shared.spec import SYSTEMS, Conventions, NetworkName, SystemSpec
from shared.spec.entries import entries_from
from shared.spec.layers import Layer

GENERATOR = [
    {"kind": "dense", "features": 12, "bias": False},
    {"kind": "batch_norm", "bias": False, "epsilon": 1e-3},
    {"kind": "leaky_relu", "slope": 0.3},
    {"kind": "reshape", "size": 2},
    {"kind": "conv_transpose", "features": 4, "size": 5, "stride": 2, "padding": "same"},
    {"kind": "batch_norm", "scale": False, "momentum": 0.01},
    {"kind": "tanh"},
    {"kind": "upsample_bilinear", "size": 2},
    {"kind": "conv", "features": 4, "size": 3, "padding": 1, "bias": True},
    {"kind": "leaky_relu"},
    {"kind": "dropout", "rate": 0.3},
    {"kind": "upsample_nearest", "size": 2},
    {"kind": "conv", "features": 2, "size": 1},
    {"kind": "sigmoid"},
]
DISCRIMINATOR = [
    {"kind": "conv", "features": 4, "size": 5, "stride": 2, "padding": "same"},
    {"kind": "zero_pad", "padding": [0, 1]},
    {"kind": "max_pool", "size": 3, "stride": 2},
    {"kind": "batch_norm", "scale": False, "bias": False},
    {"kind": "upsample_bilinear", "size": 2, "aligned_corners": True},
    {"kind": "average_pool", "size": 2},
    {"kind": "conv", "features": 6, "size": 3, "padding": [1, 0], "bias": False},
    {"kind": "global_average_pool"},
    {"kind": "dense", "features": 1, "bias": False},
]


def given_system(**changes: object) -> SystemSpec:
    fields = {
        "name": "given",
        "architecture": "custom",
        "image_size": 16,
        "channels": 2,
        "width": 4,
        "latent_dim": 5,
        "batch_size": 3,
        "discriminator_head": "linear",
        "generator_layers": entries_from(GENERATOR),
        "discriminator_layers": entries_from(DISCRIMINATOR),
    }
    return SYSTEMS["dcgan64"].replace(**fields | changes)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_every_gradient_of_a_given_network(network: NetworkName, training: bool) -> None:
    spec = given_system()
    arrays = {n: a.astype(np.float64) for n, a in representative_state(spec, 3).items()}
    draw = np.random.default_rng(5)
    shape = (3, 5) if network == "generator" else (3, *spec.image_shape)
    x = draw.standard_normal(shape)
    run = forward(spec, network, arrays, x, Conventions(), training=training)
    dy = draw.standard_normal(run.output.shape)
    dx, gradients = backward(network, run, dy)
    assert gradients.keys() == {n for n, p in spec.parameters(network).items() if p.trainable}

    def loss(changed: dict[str, np.ndarray], x: np.ndarray) -> float:
        c = Conventions()
        return np.sum(forward(spec, network, arrays | changed, x, c, training=training).output * dy)

    for name, gradient in {"input": dx, **gradients}.items():
        direction, values = draw.standard_normal(gradient.shape), []
        for step in (1e-6, -1e-6):
            is_input = name == "input"
            changed = {} if is_input else {name: arrays[name] + step * direction}
            values.append(loss(changed, x + step * direction if is_input else x))
        numeric, analytic = (values[0] - values[1]) / 2e-6, np.sum(gradient * direction)
        assert abs(numeric - analytic) <= 1e-6 * max(abs(analytic), 1e-2), name


def layer_of(spec: SystemSpec, network: NetworkName, name: str) -> Layer:
    return next(layer for layer in spec.layers(network) if layer.name == name)


def test_same_is_what_tensorflow_pads() -> None:
    spec = given_system()
    up = layer_of(spec, "generator", "conv_transpose_2")
    assert (up.output_shape, up.padding) == ((4, 4, 4), (1, 2))
    down = layer_of(spec, "discriminator", "conv_1")
    assert (down.output_shape, down.padding) == ((8, 8, 4), (1, 2))


def test_a_layers_own_number_holds_unless_a_convention_has_another() -> None:
    spec = given_system()
    arrays = {n: a.astype(np.float64) for n, a in representative_state(spec, 3).items()}
    x = np.random.default_rng(5).standard_normal((3, 5))

    def activations(c: Conventions) -> dict[str, np.ndarray]:
        return forward(spec, "generator", arrays, x, c, training=True).activations

    plain, other = activations(Conventions()), activations(Conventions(leaky_relu_slope=0.01))
    before = plain["batch_norm_1"]
    np.testing.assert_allclose(plain["leaky_relu_1"], np.where(before > 0, before, 0.3 * before))
    np.testing.assert_allclose(other["leaky_relu_1"], np.where(before > 0, before, 0.01 * before))
    before = plain["conv_3"]
    np.testing.assert_allclose(plain["leaky_relu_3"], np.where(before > 0, before, 0.2 * before))


@pytest.mark.parametrize(("name", "epsilon"), [("batch_norm_1", 1e-3), ("batch_norm_2", 1e-5)])
def test_batch_norm_has_its_own_epsilon(name: str, epsilon: float) -> None:
    spec = given_system()
    arrays = {n: a.astype(np.float64) for n, a in representative_state(spec, 3).items()}
    x = np.random.default_rng(5).standard_normal((3, 5))
    run = forward(spec, "generator", arrays, x, Conventions(), training=True)
    names = list(run.activations)
    before = run.activations[names[names.index(name) - 1]]
    axes = tuple(range(before.ndim - 1))
    centred = before - before.mean(axis=axes)
    expected = centred / np.sqrt(np.square(centred).mean(axis=axes) + epsilon)
    expected = expected * arrays.get(f"generator/{name}/scale", 1.0)
    expected = expected + arrays.get(f"generator/{name}/bias", 0.0)
    np.testing.assert_allclose(run.activations[name], expected, rtol=1e-12, atol=1e-12)
    momentum = {"batch_norm_1": 0.1, "batch_norm_2": 0.01}[name]
    mean = arrays[f"generator/{name}/mean"]
    moved = (1 - momentum) * mean + momentum * before.mean(axis=axes)
    np.testing.assert_allclose(run.statistics[f"generator/{name}/mean"], moved, rtol=1e-12)


def test_dropout_is_left_out() -> None:
    spec = given_system()
    without = tuple(e for e in spec.generator_layers if e.kind != "dropout")
    arrays = representative_state(spec, 3)
    x = np.random.default_rng(5).standard_normal((3, 5))
    outputs = [
        forward(s, "generator", arrays, x, Conventions(), training=True).output
        for s in (spec, dataclasses.replace(spec, generator_layers=without))
    ]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize(
    ("between", "is_cancelled"),
    [
        ([], True),
        ([{"kind": "dropout", "rate": 0.5}, {"kind": "max_pool", "size": 2}], True),
        ([{"kind": "zero_pad", "padding": 1}], False),
        ([{"kind": "leaky_relu"}], False),
    ],
)
def test_a_batch_norm_takes_a_bias_away(between: list[dict], is_cancelled: bool) -> None:
    """Also through what keeps a constant; its gradient is then rounding."""
    layers = [
        {"kind": "conv", "features": 4, "size": 3, "padding": 1},
        *between,
        *[{"kind": "batch_norm"}, {"kind": "flatten"}, {"kind": "dense", "features": 1}],
    ]
    spec = given_system(discriminator_layers=entries_from(layers))
    assert ("discriminator/conv_1/bias" in cancelled_biases(spec)) == is_cancelled
    arrays = {n: a.astype(np.float64) for n, a in representative_state(spec, 3).items()}
    x = np.random.default_rng(5).standard_normal((3, *spec.image_shape))
    run = forward(spec, "discriminator", arrays, x, Conventions(), training=True)
    gradients = backward("discriminator", run, np.random.default_rng(6).standard_normal(3))[1]
    kernel, bias = (np.linalg.norm(gradients[f"discriminator/conv_1/{n}"]) for n in KERNEL_AND_BIAS)
    assert (bias < 1e-12 * kernel) == is_cancelled


KERNEL_AND_BIAS = ("kernel", "bias")
