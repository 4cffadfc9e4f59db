"""The systems as data."""

import contextlib
import dataclasses
import json

import pytest

from shared.files.system_file import stored_system
from shared.spec import SYSTEMS, Conventions, SystemSpec, state_shapes


def test_dcgan64_has_the_published_parameter_counts() -> None:
    # 100·512·16 + 512·256·16 + 256·128·16 + 128·64·16 + 64·3·16 + 2·(512 + 256 + 128 + 64)
    assert SYSTEMS["dcgan64"].parameter_count("generator") == 3_576_704
    # 3·64·16 + 64·128·16 + 128·256·16 + 256·512·16 + 512·16 + 2·(128 + 256 + 512)
    assert SYSTEMS["dcgan64"].parameter_count("discriminator") == 2_765_568
    # The linear head has 8192 + 1 numbers where the conv head has 8192.
    assert SYSTEMS["dcgan64-lsgan"].parameter_count("discriminator") == 2_765_569


def test_layers_of_the_generator_in_order() -> None:
    layers = SYSTEMS["dcgan64"].layers("generator")
    convolutions = [layer for layer in layers if layer.kind == "conv_transpose"]
    assert [layer.output_shape for layer in convolutions] == [
        (4, 4, 512),
        (8, 8, 256),
        (16, 16, 128),
        (32, 32, 64),
        (64, 64, 3),
    ]
    assert [layer.parameters[0].shape for layer in convolutions][:2] == [
        (4, 4, 512, 100),
        (4, 4, 256, 512),
    ]
    assert [(layer.stride, layer.padding) for layer in convolutions] == [(1, 0)] + 4 * [(2, 1)]
    assert [layer.kind for layer in layers[:4]] == [
        "reshape",
        "conv_transpose",
        "batch_norm",
        "relu",
    ]
    assert layers[-1].kind == "tanh"


def test_layers_of_the_discriminator_in_order() -> None:
    layers = SYSTEMS["dcgan64"].layers("discriminator")
    assert [layer.name for layer in layers] == [
        "conv_1",
        "leaky_relu_1",
        "conv_2",
        "batch_norm_2",
        "leaky_relu_2",
        "conv_3",
        "batch_norm_3",
        "leaky_relu_3",
        "conv_4",
        "batch_norm_4",
        "leaky_relu_4",
        "conv_5",
        "flatten_5",
    ]


def test_a_sigmoid_ends_the_discriminator_where_the_loss_takes_probabilities() -> None:
    spec = SYSTEMS["dcgan64"]
    assert spec.replace(loss="bce_probs").layers("discriminator")[-1].kind == "sigmoid"
    assert spec.layers("discriminator")[-1].kind == "flatten"


def test_state_shapes_holds_weights_moments_and_counters() -> None:
    shapes = state_shapes(SYSTEMS["dcgan64"].replace(width=8))
    assert shapes["generator/conv_transpose_1/kernel"] == (4, 4, 64, 100)
    assert shapes["generator_optimizer/conv_transpose_1/kernel/v"] == (4, 4, 64, 100)
    assert shapes["discriminator_optimizer/step"] == ()
    assert "generator_optimizer/batch_norm_1/mean/m" not in shapes


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_spec_survives_json(name: str) -> None:
    spec = SYSTEMS[name]
    assert SystemSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_unknown_names_are_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown loss 'wgan'; expected one of bce, bce_probs"):
        SYSTEMS["dcgan64"].replace(loss="wgan")
    with pytest.raises(ValueError, match="unknown network 'critic'"):
        SYSTEMS["dcgan64"].layers("critic")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "width must be a whole number of at least 1, received 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"latent_dim": True}, "latent_dim must be a whole number"),
        ({"image_size": 48}, "unknown image_size of dcgan64 48; expected one of 32, 64, 128, 256"),
        ({"image_size": 1024}, "1024; expected one of 32, 64, 128, 256"),
        ({"image_size": 0}, "image_size must be a whole number of at least 1, received 0"),
        (
            {"discriminator_head": "dense"},
            "unknown discriminator_head of dcgan64 'dense'; expected one of conv, linear",
        ),
        ({"discriminator_steps": 0}, "discriminator_steps must be a whole number of at least 1"),
        (
            {"generator_batch": "fresh"},
            "unknown generator_batch 'fresh'; expected one of same_images, same_latents, ",
        ),
        (
            {"architecture": "dcgan65"},
            "unknown architecture 'dcgan65'; expected one of dcgan64, conv28, mlp28, ",
        ),
    ],
)
def test_a_spec_that_cannot_be_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SYSTEMS["dcgan64"].replace(**changes)


def test_a_spec_from_a_file_needs_exactly_its_fields() -> None:
    data = SYSTEMS["dcgan64"].to_dict()
    data = json.loads(json.dumps(data))
    assert stored_system(data) == SYSTEMS["dcgan64"]
    with pytest.raises(ValueError, match="'depth' was unexpected"):
        stored_system({**data, "depth": 3})
    with pytest.raises(ValueError, match=r"generator_optimizer: .*'rate'"):
        stored_system({**data, "generator_optimizer": {"rate": 1.0}})
    for name in data:
        with pytest.raises(ValueError, match=f"'{name}' is a required property"):
            stored_system({n: value for n, value in data.items() if n != name})


def test_a_schedule_from_a_file_is_of_whole_updates_and_finite_factors() -> None:
    spec = SYSTEMS["dcgan64"]
    adam = dataclasses.replace(spec.generator_optimizer, schedule=((5, 0.5),))
    data = spec.replace(generator_optimizer=adam).to_dict()
    assert SystemSpec.from_dict(data).generator_optimizer == adam
    json_data = json.loads(json.dumps(data))
    assert stored_system(json_data).generator_optimizer == adam
    for wrong in ([5.5, 0.5], [5, float("inf")], [5, True]):
        optimizer = {**data["generator_optimizer"], "schedule": [wrong]}
        with pytest.raises(ValueError, match=r"schedule\[0\]\[[01]\]: .* is not of type"):
            stored_system({**json_data, "generator_optimizer": optimizer})


@pytest.mark.parametrize(
    ("network", "name", "fan_in"),
    [
        ("generator", "conv_transpose_3", 4 * 4 * 128),
        ("discriminator", "conv_2", 4 * 4 * 64),
        ("discriminator", "dense_3", 7 * 7 * 128),
    ],
)
def test_fan_in_is_how_many_products_a_number_of_the_output_sums(
    network: str, name: str, fan_in: int
) -> None:
    layers = {layer.name: layer for layer in SYSTEMS["conv28"].layers(network)}
    assert {parameter.fan_in for parameter in layers[name].parameters} == {fan_in}


def test_conventions_have_a_default_for_every_field() -> None:
    for field in dataclasses.fields(Conventions):
        assert field.default is not dataclasses.MISSING, field.name


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("dcgan64", [32, 64, 128, 256]), ("conv28", [28]), ("mlp28", [28])],
)
def test_each_architecture_makes_images_of_its_sizes(name: str, sizes: list[int]) -> None:
    made = []
    for size in (4, 16, 27, *range(28, 131), 255, 256, 257, 512):
        with contextlib.suppress(ValueError):
            made.append(SYSTEMS[name].replace(image_size=size).image_size)
    assert made == sizes
