"""Files that Keras and TensorFlow save of somebody's model: its images come out of every one."""

import zipfile

import numpy as np
import pytest

from shared.files.errors import InputError
from shared.formats.file_kinds import kind_of
from tests.convert.converted_files import needs, run

WIDTH, LATENT = 2, 5


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of one generator's files, its latents and its images as Keras makes them."""
    needs("keras")
    import keras
    import tensorflow as tf

    layers = [keras.Input((LATENT,)), keras.layers.Reshape((1, 1, LATENT))]
    for i, width in enumerate((8, 4, 2, 1)):
        sizes = {"strides": 2, "padding": "same"} if i else {}
        layers += [
            keras.layers.Conv2DTranspose(width * WIDTH, 4, use_bias=False, **sizes),
            keras.layers.BatchNormalization(epsilon=1e-5),
            keras.layers.ReLU(),
        ]
    last = {"strides": 2, "padding": "same", "use_bias": False, "activation": "tanh"}
    model = keras.Sequential([*layers, keras.layers.Conv2DTranspose(3, 4, **last)])
    draw = np.random.default_rng(0)
    model.set_weights([draw.uniform(0.1, 0.5, w.shape) for w in model.get_weights()])
    model.compile("adam", "mse")
    folder = tmp_path_factory.mktemp("keras")
    for name in ("whole.keras", "whole.h5", "own.weights.h5"):
        (model.save_weights if "weights" in name else model.save)(folder / name)
    for step in (9, 10):  # 10 is after 9, though not by the alphabet
        tf.train.Checkpoint(generator=model).write(str(folder / f"checkpoints/ckpt-{step}"))
    tf.train.Checkpoint(v=tf.Variable(1.0)).write(str(folder / "other/ckpt"))
    latents = draw.normal(size=(16, LATENT)).astype("f4")
    return folder, latents, model(latents).numpy()


NAMES = ("whole.keras", "whole.h5", "own.weights.h5", "checkpoints", "checkpoints/ckpt-9",
         "checkpoints/ckpt-9.index", "checkpoints/ckpt-9.data-00000-of-00001")  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_the_images_are_those_of_keras(saved, name):
    folder, latents, images = saved
    kind = kind_of(folder / name)
    contents = kind.read(folder / name)
    spec = contents.spec
    assert (spec.name, spec.width, spec.latent_dim) == ("dcgan64", WIDTH, LATENT)
    made = kind.run(folder / name, contents, {"generator": latents})["generator"]
    np.testing.assert_allclose(made, images, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_inspect_and_refusals(saved, tmp_path, capsys):
    folder, _, _ = saved
    assert run("--inspect", folder / "whole.h5") == 0
    shown = capsys.readouterr().out
    assert "next: python -m shared.sample" in shown
    other = folder / "other/ckpt"
    assert run("--inspect", other) == 2
    assert "expected arrays with the names of a layer's" in capsys.readouterr().err
    index = (tmp_path / "x.index").write_bytes((folder / "other/ckpt.index").read_bytes())
    assert index > 0
    with pytest.raises(InputError, match="expected a complete checkpoint of TensorFlow"):
        kind_of(tmp_path / "x").read(tmp_path / "x")
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", b"{}")
        archive.writestr("model.weights.h5", bytes(2**26))
    with pytest.raises(InputError, match=r"found 67,108,864 bytes declared in a file of"):
        kind_of(tmp_path / "bomb.keras").read(tmp_path / "bomb.keras")


def test_the_order_that_keras_2_keeps_in_a_file_is_its_own(tmp_path):
    needs("keras")
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["layer_names"] = np.array([b"stem", b"dense_10", b"dense_9", b"body"])
        for name in ("body", "dense_10", "dense_9", "stem"):
            file[f"{name}/{name}/kernel:0"] = np.zeros((2, 2), "f4")
    names = kind_of(tmp_path / "a.h5").module().load(tmp_path / "a.h5")[0]
    assert [name.split("/")[0] for name in names] == ["stem", "dense_10", "dense_9", "body"]
