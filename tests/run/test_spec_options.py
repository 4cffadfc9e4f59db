"""The options that choose a system, the same in explain and conformance."""

import argparse
from pathlib import Path

import pytest

from shared.run.options import add_spec_options, chosen_spec
from shared.spec import SYSTEMS, AdamSpec, SystemSpec
from tests.files.test_system_file import DOCUMENT, written


def chosen(*arguments: str) -> SystemSpec:
    parser = argparse.ArgumentParser()
    add_spec_options(parser, "dcgan64", batch_size=4)
    return chosen_spec(parser.parse_args(arguments), lambda _: {"width": 2, "latent_dim": 6})


def test_a_system_of_ours_is_narrow() -> None:
    narrow = {"width": 2, "latent_dim": 6, "batch_size": 4}
    assert chosen() == SYSTEMS["dcgan64"].replace(**narrow)
    assert chosen("--system", "conv28") == SYSTEMS["conv28"].replace(**narrow)


def test_every_option_changes_its_field() -> None:
    options = "--image-size 32 --channels 1 --width 4 --latent-dim 5 --d-steps 2 --batch-size 8"
    words = f"{options} --loss lsgan --generator-batch new-latents --learning-rate 0.5".split()
    assert chosen(*words) == SYSTEMS["dcgan64"].replace(
        image_size=32,
        channels=1,
        width=4,
        latent_dim=5,
        discriminator_steps=2,
        batch_size=8,
        loss="lsgan",
        generator_batch="new_latents",
        generator_optimizer=AdamSpec(learning_rate=0.5),
        discriminator_optimizer=AdamSpec(learning_rate=0.5),
    )


def test_a_file_keeps_its_sizes(tmp_path: Path) -> None:
    spec = chosen("--system", str(written(tmp_path / "mine.json", DOCUMENT)))
    assert (spec.width, spec.latent_dim, spec.batch_size) == (4, 5, 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--width 0", "width must be a whole number of at least 1, received 0"),
        ("--image-size 48", "unknown image_size of dcgan64 48; expected one of 32, 64, 128, 256"),
        ("--system conv", "unknown system 'conv'; expected dcgan64, .* or a .toml or .json file"),
    ],
)
def test_what_no_system_can_be_is_a_value_error(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(*words.split())
