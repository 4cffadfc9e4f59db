"""`python -m shared.sample` and `load_generator`: the reference's images, from every file."""

import numpy as np
import pytest
from PIL import Image

from shared import sample
from shared.convert import __main__ as convert
from shared.data.dataset import to_pixels
from shared.interface import MissingFrameworkError, load_implementation
from shared.reference.network import forward
from shared.sample import Generator, load_generator
from shared.spec import SYSTEMS, Conventions
from shared.spec.streams import latents
from tests import exit_code
from tests.studies.evaluated_run import trained_arrays, write_run

SPEC = SYSTEMS["mlp28"].replace(width=4, batch_size=4)


def reference_pixels(spec, arrays, drawn):
    """The images that the NumPy reference makes of latents, as they would be saved."""
    exact = {name: array.astype(np.float64) for name, array in arrays.items()}
    made = forward(spec, "generator", exact, drawn, Conventions(), training=False).output
    return to_pixels(made, spec.image_range).astype(int)


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", spec=SPEC, writer="pytorch")


def command(*arguments):
    return sample.main([str(argument) for argument in arguments])


def converted(run, destination, *options):
    source = next((run / "checkpoints").iterdir())
    try:
        code = convert.main([*map(str, (source, destination)), *options])
    except MissingFrameworkError as error:
        pytest.skip(str(error))
    assert code == 0
    return destination


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("run", ()),
        ("run/checkpoints/step_000007.safetensors", ()),
        ("whole.pth", ()),
        ("netG.pth", ("--only", "generator")),
        ("netG.safetensors", ("--only", "generator")),
        pytest.param("both.weights.h5", (), marks=pytest.mark.slow),
        pytest.param("folder.orbax", (), marks=pytest.mark.slow),
    ],
)
def test_every_file_gives_the_images_of_the_reference(run, name, options):
    path = run.parent / name
    if not path.exists():
        converted(run, path, *options)
    images = load_generator(path).sample(70, seed=4)
    assert images.dtype == np.uint8
    drawn = np.concatenate(
        [latents(SPEC, 4, batch, 64, purpose="evaluation") for batch in range(2)]
    )[:70]
    expected = reference_pixels(SPEC, trained_arrays(SPEC), drawn)
    assert images.shape == expected.shape == (70, 28, 28, 1)
    assert np.abs(images - expected).max() <= 1  # a float32 at the edge of two levels
    assert np.ptp(images) > 20


def test_every_framework_paints_the_same_with_the_generator_of_the_project(implementation):
    exact = load_generator(framework="reference")
    drawn = exact.latents(8, seed=2)
    truth = exact.implementation.generate(exact.state, drawn)
    generator = load_generator(framework=implementation.name)
    made = implementation.generate(generator.state, drawn.astype("float32"))
    # Rounding of float32, measured 1e-6 at most; images are in [0, 1].
    assert np.abs(made - truth).max() <= 1e-5
    assert np.ptp(truth) > 0.9


@pytest.mark.parametrize("name", ["reference", "pytorch"])
def test_the_framework_can_be_chosen(run, name):
    generator = load_generator(run, name)
    assert generator.implementation is load_implementation(name)
    expected = reference_pixels(SPEC, trained_arrays(SPEC), generator.latents(3, 1))
    assert np.abs(generator.sample(3, 1) - expected).max() <= 1


@pytest.mark.parametrize("system", ["dcgan64", "mlp28"])
def test_a_way_between_two_images(system):
    spec = SYSTEMS[system]
    generator = Generator(None, None, spec, "float32")
    first, last = generator.latents(2, seed=2)
    way = generator.interpolated(first, last, 3)
    np.testing.assert_array_equal(way[[0, 2]], [first, last])
    # N(0, 1) stays N(0, 1): a sum of two by √2; U(-1, 1) stays on the line between them.
    scale = np.sqrt(2) if spec.latent_distribution == "normal" else 2
    np.testing.assert_allclose(way[1], (first + last) / scale, rtol=1e-12)


def test_the_command_writes_pictures(run, tmp_path, capsys):
    assert command(run, "--count", 5, "--out", tmp_path / "five", "--seed", 3) == 0
    files = sorted((tmp_path / "five").iterdir())
    assert [file.name for file in files] == [f"sample_{i:06d}.png" for i in range(5)]
    assert capsys.readouterr().out.endswith("sample_*.png: 5 images of 28x28 pixels\n")
    options = ("--interpolate", 4, 1, "--count", 10, "--grid", "--seed", 3)
    assert command(run, *options, "--out", tmp_path / "way") == 0
    grid = np.asarray(Image.open(tmp_path / "way" / "grid.png"))
    assert grid.shape == (2 + 2 * 30, 2 + 8 * 30)
    start, end = grid[2:30, 2:30], grid[32:60, 32:60]
    assert np.array_equal(start, np.asarray(Image.open(files[4])))
    assert np.array_equal(end, np.asarray(Image.open(files[1])))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--count", 0), "--count: must be at least 1, received 0"),
        (("--count", 10**7), "--count: must be at most 1000000, received 10000000"),
        (("--interpolate", -1, 1), "--interpolate: must be at least 0, received -1"),
        (("--seed", -1), "--seed: must be at least 0"),
        (("--step", 8), "--step 8: "),
        (("--out", "."), "--out . is taken; expected an empty folder"),
        (("--framework", "pytroch"), "unknown implementation 'pytroch'"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert exit_code(command, run, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "samples").exists()


def test_a_discriminator_makes_no_images(run, tmp_path, capsys):
    path = converted(run, tmp_path / "netD.pth", "--only", "discriminator")
    assert command(path, "--out", tmp_path / "x") == 2
    assert "netD.pth holds discriminator; expected a generator" in capsys.readouterr().err
