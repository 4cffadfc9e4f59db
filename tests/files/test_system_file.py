"""System files: what they give, and one clear line for every mistake."""

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.files import system_file
from shared.files.checkpoint import decode_description, encode_description
from shared.files.errors import InputError
from shared.files.system_file import find_system, read_system
from shared.spec import SYSTEMS, AdamSpec, Conventions
from shared.spec.layers import NORMAL_002, UNIFORM_FAN_IN, Initializer
from shared.spec.streams import initial_state, latents
from tests.reference.test_given_networks import DISCRIMINATOR, GENERATOR

DOCUMENT = {
    "name": "mine",
    "image_size": 16,
    "channels": 2,
    "latent_dim": 5,
    "loss": "bce",
    "generator": {"layers": GENERATOR},
    "discriminator": {"layers": DISCRIMINATOR, "optimizer": {"learning_rate": 1e-3}},
}


def written(path: Path, document: object) -> Path:
    text = json.dumps(document) if path.suffix == ".json" else tomli_w.dumps(document)
    path.write_text(text)
    return path


def changed(path: str, value: object) -> dict:
    """Return the document with a value at a path such as "generator layers 0 kind"."""
    document = copy.deepcopy(DOCUMENT)
    place, *rest = path.split()
    inner: object = document
    for step in rest:
        inner = inner[int(place) if place.isdigit() else place]
        place = step
    inner[int(place) if place.isdigit() else place] = value
    return document


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_file_is_a_system(tmp_path: Path, suffix: str) -> None:
    spec = read_system(written(tmp_path / f"mine{suffix}", DOCUMENT))
    assert (spec.name, spec.architecture, spec.width) == ("mine", "custom", 4)
    assert (spec.batch_size, spec.latent_distribution, spec.image_range) == (64, "normal", (-1, 1))
    assert spec.generator_optimizer == AdamSpec()
    assert spec.discriminator_optimizer == AdamSpec(learning_rate=1e-3)
    assert find_system(str(tmp_path / f"mine{suffix}")) == spec


def test_known_names_are_no_files() -> None:
    assert find_system("conv28") is SYSTEMS["conv28"]
    with pytest.raises(ValueError, match="unknown system 'dcgan'; expected dcgan64, "):
        find_system("dcgan")


def test_a_networks_initializer_is_that_of_its_weights(tmp_path: Path) -> None:
    of_network, own = {"distribution": "uniform_fan_in"}, {"distribution": "normal", "scale": 0.5}
    document = changed("generator initializer", of_network)
    document["generator"]["layers"][4]["initializer"] = own
    spec = read_system(written(tmp_path / "mine.toml", document))
    kernels = {n: p for n, p in spec.parameters("generator").items() if p.name == "kernel"}
    dense, up, *_ = (p.initializer for p in kernels.values())
    assert (dense, up) == (UNIFORM_FAN_IN, Initializer("normal", 0.0, 0.5))
    assert spec.parameters("generator")["generator/conv_3/bias"].initializer == UNIFORM_FAN_IN
    assert spec.parameters("discriminator")["discriminator/conv_1/kernel"].initializer == NORMAL_002


@pytest.mark.parametrize(
    ("law", "default"), [("glorot_uniform", "keras_default"), ("lecun_normal", "flax_default")]
)
def test_a_frameworks_initial_weights_a_biass_own_and_latents(
    tmp_path: Path, law: str, default: Any
) -> None:
    own = {"distribution": "normal", "mean": 1.0, "scale": 0.5}
    document = changed("generator initializer", {"distribution": law})
    document["generator"]["layers"][8]["bias_initializer"] = own
    document["latent_distribution"] = "uniform_0_1"
    document["conventions"] = {"batch_norm_mode": "running"}
    spec = read_system(written(tmp_path / "mine.toml", document))
    of_default = initial_state(spec, 3, Conventions(initializer=default))
    fresh, kernels = initial_state(spec, 3), 0
    for name in (n for n in spec.parameters("generator") if n.endswith("/kernel")):
        np.testing.assert_array_equal(fresh[name], of_default[name])
        kernels += 1
    assert kernels == 4
    assert spec.parameters("generator")["generator/conv_3/bias"].initializer == Initializer(**own)
    drawn = latents(spec, 0, 0, 1000)
    assert 0.0 <= drawn.min() < 0.01 < 0.99 < drawn.max() <= 1.0


HUGE = {"kind": "conv_transpose", "features": 2**20, "size": 256}
MISTAKES = [
    ("loss", "wgan", "loss: 'wgan' is not one of ['bce', 'bce_probs', 'minimax', 'lsgan']"),
    ("los", "bce", "the file: Additional properties are not allowed ('los' was unexpected)"),
    ("latent_dim", 5.0, "latent_dim: 5.0 is not of type 'integer'"),
    ("image_range", [0.0, float("nan")], "image_range[1]: nan is not of type 'number'"),
    ("image_range", [1, -1], "image_range needs its lower end first"),
    ("image_size", 32, "generator, its last layer makes 16x16x2; expected 32x32x2"),
    ("name", "a/b", "name: 'a/b' does not match"),
    ("generator layers", [], "generator.layers: [] should be non-empty"),
    ("generator layers 0 kind", "linear", "generator.layers[0].kind: 'linear' is not one of"),
    ("generator layers 0 size", 3, "generator.layers[0]: 'size' is not one of ['kind', 'name', "),
    ("generator layers 4", {"kind": "conv", "features": 4}, "'size' is a required property"),
    ("generator layers 0 features", 13, "generator, layer 4, reshape_1: expected a multiple of 4"),
    ("generator layers 3", {"kind": "relu"}, "layer 5, conv_transpose_2: expected an image; resh"),
    ("generator layers 6 name", "dense_1", "layer 7, dense_1: another layer has this name; exp"),
    ("discriminator layers 7", {"kind": "tanh"}, "layer 9, dense_3: expected features; flatten"),
    ("discriminator layers 6", {"kind": "conv", "features": 6, "size": 9}, "image of at least 9"),
    ("discriminator layers 2 size", 200, "layer 3, max_pool_1: expected an image of at least 200"),
    ("discriminator layers 6 padding", [-1, 0], "layer 7, conv_2: expected a padding of at least"),
    ("discriminator layers 8 features", 2, "discriminator, its last layer makes 2; expected 1"),
    ("discriminator optimizer beta1", 1.0, "discriminator.optimizer.beta1: 1.0 is greater than or"),
    ("discriminator optimizer decay", 0.1, "discriminator.optimizer: 'decay' is not one of ["),
    ("discriminator optimizer clip_norm", 0, "optimizer.clip_norm: 0 is less than or equal to"),
    ("discriminator optimizer schedule", [[5]], "optimizer.schedule[0]: [5] is too short"),
    ("discriminator optimizer schedule", [[0, 0.5]], "optimizer.schedule[0][0]: 0 is less than"),
    ("discriminator optimizer schedule", [[9, 0.5], [9, 0.1]], "of updates in a schedule, not [9"),
    (
        "generator layers 4",
        HUGE,
        "layer 5, conv_transpose_2: expected at most 2,147,483,648",
    ),
]


@pytest.mark.parametrize(("place", "value", "message"), MISTAKES)
def test_one_line_names_the_mistake(
    tmp_path: Path, place: str, value: object, message: str
) -> None:
    path = written(tmp_path / "mine.toml", changed(place, value))
    with pytest.raises(InputError) as raised:
        read_system(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name = ", "Invalid value"),
        ("[" * 50_000, "mine.toml: "),
        ("\x00", "mine.toml: "),
        ("", "the file: 'name' is a required property"),
        ("name = 1979-05-27", "mine.toml: "),
    ],
)
def test_what_is_no_system_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_system(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
PLACES = [
    *DOCUMENT,
    *(f"generator layers {i}" for i in range(len(GENERATOR))),
    *(f"generator layers {i} {n}" for i, entry in enumerate(GENERATOR) for n in entry),
    *(f"discriminator layers {i} {n}" for i, entry in enumerate(DISCRIMINATOR) for n in entry),
]


@given(st.sampled_from(PLACES), VALUES)
@settings(max_examples=60, deadline=None)
def test_any_value_anywhere_is_a_system_or_one_line(place: str, value: object) -> None:
    document = changed(place, value)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(system_file, "read_document", lambda _: document)
        with contextlib.suppress(InputError):  # which is one line, whatever it is given
            assert read_system(Path("mine.json")).layers("generator")


def test_a_checkpoint_of_such_a_system_is_refused(tmp_path: Path) -> None:
    spec = read_system(written(tmp_path / "mine.toml", DOCUMENT))
    description = encode_description(SYSTEMS["mlp28"], None) | {"spec": json.dumps(spec.to_dict())}
    with pytest.raises(InputError, match="a system of a file, which has no checkpoints"):
        decode_description(tmp_path / "a.safetensors", description)
