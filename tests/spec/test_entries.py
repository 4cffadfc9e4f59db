"""Systems whose layers are data: shapes, other widths, and the round trip."""

import json
from fractions import Fraction

import numpy as np
import pytest

from shared.files.system_file import stored_system
from shared.fixtures.network import representative_inputs
from shared.reference.network import forward
from shared.reference.step import train_step
from shared.spec import (
    NETWORKS,
    SYSTEMS,
    Conventions,
    NetworkName,
    SystemSpec,
    flattened_pixels,
)
from shared.spec.entries import entries_from, narrowest, network_layers
from tests.reference.test_given_networks import DISCRIMINATOR, GENERATOR, given_system


def shapes(spec: SystemSpec, network: str) -> list[tuple[int, ...]]:
    return [layer.output_shape for layer in spec.layers(network)]


def test_shapes_are_found_layer_by_layer() -> None:
    spec = given_system()
    assert shapes(spec, "generator") == [
        *[(12,)] * 3,
        (2, 2, 3),
        *[(4, 4, 4)] * 3,
        (8, 8, 4),
        *[(8, 8, 4)] * 3,
        (16, 16, 4),
        *[(16, 16, 2)] * 2,
    ]
    assert shapes(spec, "discriminator") == [
        (8, 8, 4),
        (9, 9, 4),
        *[(4, 4, 4)] * 2,
        (8, 8, 4),
        (4, 4, 4),
        (3, 3, 6),
        (6,),
        (1,),
    ]


def test_a_given_dcgan_is_the_one_of_that_name() -> None:
    """The same layers by name, kind, shape and parameters as `architectures` makes."""
    up = [{"kind": "reshape", "size": 1}]
    for i, features in enumerate((512, 256, 128, 64, 3)):
        size = {"size": 4, "stride": 2 if i else 1, "padding": 1 if i else 0, "bias": False}
        up.append({"kind": "conv_transpose", "features": features, **size})
        up += [{"kind": "batch_norm", "initializer": AROUND_ONE}, {"kind": "relu"}]
    up[-2:] = [{"kind": "tanh"}]
    down = []
    for i, features in enumerate((64, 128, 256, 512, 1)):
        size = {"size": 4, "stride": 2 if i < 4 else 1, "padding": 1 if i < 4 else 0, "bias": False}
        down.append({"kind": "conv", "features": features, **size})
        down += [{"kind": "batch_norm", "initializer": AROUND_ONE}] if 0 < i < 4 else []
        down += [{"kind": "leaky_relu"}] if i < 4 else [{"kind": "flatten"}]
    original = SYSTEMS["dcgan64"]
    spec = original.replace(
        architecture="custom",
        discriminator_head="linear",
        generator_layers=entries_from(up),
        discriminator_layers=entries_from(down),
    )
    for width in (64, 2):
        for network in NETWORKS:
            layers = original.replace(width=width).layers(network)
            assert spec.replace(width=width).layers(network) == layers


AROUND_ONE = {"distribution": "normal", "mean": 1.0, "scale": 0.02}


def test_another_width_changes_what_is_hidden() -> None:
    spec = given_system().replace(width=8)
    assert shapes(spec, "generator")[:4] == [*[(24,)] * 3, (2, 2, 6)]
    assert shapes(spec, "generator")[-1] == (16, 16, 2)
    assert shapes(spec, "discriminator")[-1] == (1,)
    with pytest.raises(ValueError, match="generator, layer 4, reshape_1: expected a multiple of 4"):
        given_system().replace(width=5)
    entries = entries_from(DISCRIMINATOR)
    with pytest.raises(ValueError, match="layer 7, conv_2: 5/4 of its features is no whole number"):
        network_layers(entries, (16, 16, 2), (1,), Fraction(5, 4))


def test_other_sizes_of_images_have_to_fit() -> None:
    with pytest.raises(ValueError, match="its last layer makes 16x16x2; expected 32x32x2"):
        given_system().replace(image_size=32)
    assert given_system().replace(latent_dim=9).parameter_count("generator") > 0


def test_the_sigmoid_is_the_losss_own() -> None:
    kinds = {
        loss: given_system(loss=loss).layers("discriminator")[-1].kind
        for loss in ("bce", "bce_probs", "lsgan")
    }
    assert kinds == {"bce": "dense", "bce_probs": "sigmoid", "lsgan": "dense"}
    ended = entries_from([*DISCRIMINATOR, {"kind": "sigmoid"}])
    for loss, kind in (("bce", "dense"), ("bce_probs", "sigmoid"), ("lsgan", "sigmoid")):
        spec = given_system(loss=loss, discriminator_layers=ended)
        assert spec.layers("discriminator")[-1].kind == kind
        assert [e.kind for e in spec.discriminator_layers].count("sigmoid") == 1


def test_round_trip_and_equality() -> None:
    spec = given_system()
    data = json.loads(json.dumps(spec.to_dict()))
    assert SystemSpec.from_dict(data) == spec == SystemSpec.from_dict(spec.to_dict())
    assert hash(SystemSpec.from_dict(data)) == hash(spec)
    assert data["generator_layers"] == [
        {name: value for name, value in entry.items() if (name, value) != ("bias", True)}
        for entry in GENERATOR
    ]
    assert spec != spec.replace(generator_layers=(*spec.generator_layers[:-1], LAST))


LAST = entries_from([{"kind": "tanh"}])[0]


def test_the_four_systems_are_stored_as_they_were() -> None:
    for spec in SYSTEMS.values():
        data = spec.to_dict()
        assert [*data] == [*SystemSpec.__dataclass_fields__][:-4]
        assert SystemSpec.from_dict(data) == spec
        with pytest.raises(ValueError, match=r"generator_layers: \[\] "):
            stored_system(json.loads(json.dumps(data)) | {"generator_layers": []})
        with pytest.raises(ValueError, match="has its own layers and conventions"):
            spec.replace(generator_layers=entries_from(GENERATOR))


def test_a_systems_own_conventions_stand_for_the_canonical_ones() -> None:
    own = (("discriminator_loss_scale", 0.5), ("update_order", "generator_first"))
    spec = given_system(conventions=own)
    assert spec.own_conventions(Conventions()) == Conventions(**dict(own))
    other = Conventions(update_order="simultaneous", leaky_relu_slope=0.1)
    assert spec.own_conventions(other) == other.replace(discriminator_loss_scale=0.5)
    assert SystemSpec.from_dict(spec.to_dict()) == spec
    assert given_system().own_conventions(other) is other


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("discriminator_loss_scale", 0.5),
        ("update_order", "generator_first"),
        ("discriminator_batches", "merged"),
        ("generator_updates", "two_passes"),
        ("batch_norm_running_variance", "biased"),
        ("adam_epsilon_placement", "before_correction"),
    ],
)
def test_a_step_of_a_system_is_that_of_its_conventions(field: str, value: object) -> None:
    plain = given_system()
    arrays, real, z = representative_inputs(plain, 0, "own")
    own = train_step(plain.replace(conventions=((field, value),)), arrays, real, z)
    asked = train_step(plain, arrays, real, z, Conventions(**{field: value}))
    usual = train_step(plain, arrays, real, z)
    assert all(np.array_equal(own.arrays[n], asked.arrays[n]) for n in asked.arrays)
    assert any(not np.array_equal(own.arrays[n], usual.arrays[n]) for n in usual.arrays)


@pytest.mark.parametrize("network", NETWORKS)
def test_parameters_of_flattened_pixels(network: NetworkName) -> None:
    """A framework that flattens CHW has the same network with exactly those axes rearranged."""
    layers = [
        {"kind": "conv", "features": 4, "size": 5, "stride": 4, "padding": 2},
        *[{"kind": "flatten"}, {"kind": "dropout", "rate": 0.2}, {"kind": "batch_norm"}],
        *[{"kind": "dense", "features": 8}, {"kind": "relu"}, {"kind": "dense", "features": 1}],
    ]
    spec = given_system(discriminator_layers=entries_from(layers))
    arrays, real, z = representative_inputs(spec, 0, "own")
    moved = dict(arrays)
    for name, (axis, (height, width, channels)) in flattened_pixels(spec).items():
        shape = arrays[name].shape
        pixels = arrays[name].reshape(*shape[:axis], height, width, channels, *shape[axis + 1 :])
        moved[name] = np.moveaxis(pixels, axis + 2, axis).reshape(shape)
    x, chw = (z if network == "generator" else real), Conventions(flatten_order="chw")
    expected = forward(spec, network, arrays, x, Conventions(), training=True).output
    found = forward(spec, network, moved, x, chw, training=True).output
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    number = {"generator": 1, "discriminator": 2}[network]
    assert f"{network}/dense_{number}/kernel" in flattened_pixels(spec)


@pytest.mark.parametrize(("features", "narrow"), [((8, 3, 5, 1), 3), ((6, 9, 2), 6), ((7,), 1)])
def test_the_narrowest_layer_is_a_hidden_one(features: tuple[int, ...], narrow: int) -> None:
    layers = [{"kind": "dense", "features": count} for count in features]
    assert narrowest(entries_from([*layers, {"kind": "tanh"}])) == narrow
