"""--init-from: which arrays a run starts with, and which options the files determine."""

import numpy as np
import pytest

from shared.convert import __main__ as convert
from shared.files.checkpoint import read_checkpoint
from shared.run.command import run_training
from shared.spec import SYSTEMS
from shared.spec.streams import initial_state
from tests.convert.converted_files import needs
from tests.run.stand_in_run import fit, ten_pictures
from tests.studies.evaluated_run import trained_arrays, write_run

GREY = SYSTEMS["dcgan64"].replace(width=2, latent_dim=5, channels=1)


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint whose Adams are not at zero."""
    arrays = trained_arrays(GREY)
    for name in arrays:
        if name.startswith("generator_optimizer/"):
            arrays[name] = arrays[name] + arrays[name].dtype.type(3)
    run = write_run(tmp_path / "first", arrays, spec=GREY)
    return run / "checkpoints" / "step_000007.safetensors"


def start_of(options):
    return options.initial.arrays(options.spec, options.seed, options.dtype)


def test_weights_of_a_checkpoint_and_a_fresh_optimizer(parse, checkpoint):
    options = parse("--init-from", str(checkpoint), "--seed", "9", "--dtype", "float64")
    spec = options.spec
    assert (spec.width, spec.latent_dim, spec.channels) == (2, 5, 1)
    # By the file's width, as for any other.
    assert spec.generator_optimizer.learning_rate == pytest.approx(2e-4 * 64 / 2)
    arrays, given = start_of(options), read_checkpoint(checkpoint).arrays
    assert {a.dtype for n, a in arrays.items() if not n.endswith("/step")} == {np.dtype("f8")}
    for name, array in arrays.items():
        expected = np.zeros_like(array) if "_optimizer/" in name else given[name]
        np.testing.assert_array_equal(array, expected)
    notes = "\n".join(options.initial.notes())
    assert "generator and discriminator, Adam at zero" in notes
    assert "left behind: generator_optimizer, discriminator_optimizer, progress" in notes


def test_a_generator_alone_and_one_file_for_each(parse, checkpoint, tmp_path):
    needs("torch")
    for network in ("generator", "discriminator"):
        made = tmp_path / f"{network}.pth"
        assert convert.main([str(checkpoint), str(made), "--only", network]) == 0
    given = read_checkpoint(checkpoint).arrays
    alone = parse("--init-from", str(tmp_path / "generator.pth"), "--seed", "9")
    arrays, fresh = start_of(alone), initial_state(alone.spec, 9)
    for name in GREY.parameters("generator"):
        np.testing.assert_array_equal(arrays[name], given[name])
    for name in GREY.parameters("discriminator"):
        np.testing.assert_array_equal(arrays[name], fresh[name].astype("float32"))
    assert alone.initial.notes()[-1] == "from the seed: discriminator"
    both = parse(
        "--init-from", *(str(tmp_path / f"{n}.pth") for n in ("generator", "discriminator"))
    )
    for name in GREY.parameters("discriminator"):
        np.testing.assert_array_equal(start_of(both)[name], given[name])


def test_the_run_goes_on_when_the_files_are_gone(checkpoint, tmp_path, capsys):
    data, out = ten_pictures(tmp_path), tmp_path / "new"
    options = ["--batch-size", "2", "--data", str(data), "--out", str(out)]
    assert run_training("jax", fit, ["--init-from", str(checkpoint), *options, "--steps", "2"]) == 0
    assert f"starting from {checkpoint}: generator and discriminator" in capsys.readouterr().out
    last = read_checkpoint(out / "checkpoints" / "step_000002.safetensors")
    given = read_checkpoint(checkpoint).arrays
    name = "discriminator/conv_1/kernel"  # the stand-in moves another one
    np.testing.assert_array_equal(last.arrays[name], given[name])
    checkpoint.unlink()
    assert run_training("jax", fit, ["--resume", "--out", str(out), "--steps", "3"]) == 0
    again = read_checkpoint(out / "checkpoints" / "step_000003.safetensors")
    assert (again.spec.latent_dim, again.spec.channels) == (5, 1)


def test_a_config_file_holds_the_files(parse, checkpoint, tmp_path):
    (tmp_path / "c.toml").write_text(f"init-from = ['{checkpoint}']\nsteps = 5\n")
    options = parse("--config", "c.toml")
    assert options.config["init-from"] == [str(checkpoint)]
    assert (options.steps, options.spec.width) == (5, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.pth",), "nothing.pth: expected a file, found nothing"),
        (("CHECKPOINT", "--width", "4"), "--init-from for dcgan64 of width 4 does not fit the sys"),
        (("CHECKPOINT", "--image-size", "32"), "--init-from for dcgan64 of width 2 does not fit"),
        (("CHECKPOINT", "--system", "mlp28"), "--init-from for mlp28 of width 2 does not fit"),
        (("CHECKPOINT", "CHECKPOINT2"), "more than one file holds discriminator, "),
    ],
)
def test_what_does_not_fit_is_one_line(checkpoint, tmp_path, capsys, arguments, message):
    needs("torch")
    again = tmp_path / "again.safetensors"
    again.write_bytes(checkpoint.read_bytes())
    places = {"CHECKPOINT": str(checkpoint), "CHECKPOINT2": str(again)}
    given = [places.get(a, a) for a in arguments]
    assert run_training("jax", pytest.fail, ["--init-from", *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
