"""Images of other sizes and channels in all three implementations against the reference."""

from pathlib import Path

import pytest

from shared.formats.file_kinds import FileKind
from shared.interface import Implementation
from shared.reference.adapter import ReferenceImplementation
from shared.reference.comparison import gradient_differences
from shared.reference.step import train_step
from shared.spec import NETWORKS, SYSTEMS, SystemSpec
from shared.studies.trajectory import BOUNDS, Experiment, compare, training_images
from tests.conftest import installed_implementations
from tests.implementations.native_files import make_contents, require_same
from tests.implementations.test_models import GRADIENTS
from tests.implementations.test_systems import inputs, loaded, require_all, require_same_step
from tests.studies.curves import optimized_steps, require_within
from tests.tiers import SLOW_IN_TF_AND_JAX

SIZES = {"dcgan64": (32, 3), "dcgan64-lsgan": (128, 1)}
"""System → image size and channels: each head at one of them."""


def sized(system: str, image_size: int, channels: int, **changes: object) -> SystemSpec:
    """Return a narrow system for images of another size."""
    sizes = {"width": 2, "latent_dim": 5, "batch_size": 3, **changes}
    return SYSTEMS[system].replace(image_size=image_size, channels=channels, **sizes)


@pytest.mark.parametrize("system", [*SYSTEMS][:2])
@pytest.mark.parametrize("image_size", [32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_parameters_follow_the_closed_formula(system: str, image_size: int, channels: int) -> None:
    """Sums of kernel areas times channels, with the widest layer m·width wide, m = size / 8."""
    spec = SYSTEMS[system].replace(image_size=image_size, channels=channels, latent_dim=62)
    width, m, dense_bias = 64, image_size // 8, system == "dcgan64-lsgan"
    between = 2 * width * (m * m - 1) // 3  # Σ 2ⁱ·2ⁱ⁻¹ = 2 (m² - 1) / 3, over i = 1 ... log2 m
    generator = 16 * width * (62 * m + between + channels) + 2 * width * (2 * m - 1)
    discriminator = 16 * width * (channels + between + m) + 4 * width * (m - 1) + dense_bias
    assert spec.parameter_count("generator") == generator
    assert spec.parameter_count("discriminator") == discriminator


def test_a_larger_image_has_another_layer_of_twice_the_channels() -> None:
    spec, kinds = SYSTEMS["dcgan64"].replace(image_size=128), ("conv", "conv_transpose")
    generator, discriminator = (
        [layer.output_shape for layer in spec.layers(network) if layer.kind in kinds]
        for network in NETWORKS
    )
    hidden = [(4, 4, 1024), (8, 8, 512), (16, 16, 256), (32, 32, 128), (64, 64, 64)]
    assert generator == [*hidden, (128, 128, 3)]
    assert discriminator == [*hidden[::-1], (1, 1, 1)]


@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize("system", SIZES)
def test_one_step_moves_every_tensor_as_the_reference(
    implementation: Implementation, system: str
) -> None:
    spec = sized(system, *SIZES[system])
    require_same_step(implementation, spec, *inputs(spec, 0), "float64")


@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize(("system", "channels"), [("dcgan64", 1), ("conv28", 3), ("mlp28", 3)])
def test_gradients_with_the_other_number_of_channels(
    implementation: Implementation, system: str, channels: int
) -> None:
    spec = sized(system, SYSTEMS[system].image_size, channels, batch_size=7)
    arrays, real, z = inputs(spec, 0)
    state = loaded(implementation, spec, arrays, "float64")
    gradients = implementation.gradients(state, real, z)
    expected = train_step(spec, arrays, real, z).gradients
    require_all(gradient_differences(spec, gradients, expected), GRADIENTS["float64"])


@pytest.mark.slow
@pytest.mark.parametrize("system", SIZES)
def test_twenty_steps(system: str) -> None:
    spec = sized(system, *SIZES[system], batch_size=4)
    images = training_images("noise", spec, 0)
    run = Experiment(spec, images, steps=20, seed=0, dtype="float64")
    trainers = [ReferenceImplementation(), *installed_implementations(at_least=2)]
    with optimized_steps():
        require_within(compare(trainers, run), BOUNDS["float64"])


def test_a_layer_too_few_is_seen() -> None:
    """What the tests above hold apart: a state of another size is not taken."""
    spec, other = sized("dcgan64", 32, 3), sized("dcgan64", 64, 3)
    reference = ReferenceImplementation()
    with pytest.raises(ValueError, match=r"missing: .*generator/conv_transpose_5/kernel"):
        loaded(reference, other, inputs(spec, 0)[0], "float64")


@pytest.mark.parametrize("network", [None, *NETWORKS])
@pytest.mark.parametrize("system", SIZES)
def test_a_file_of_both_networks_or_of_one(
    own: FileKind, path: Path, system: str, network: str | None
) -> None:
    spec = sized(system, *SIZES[system])
    contents = make_contents(spec, carried=(network,) if network else own.carried)
    own.write(path, contents)
    read = own.read(path)
    require_same(read, contents)
    # One network alone has no stored spec: its size is read off the shapes.
    assert (read.spec.image_shape, read.spec.width) == (spec.image_shape, 2)
