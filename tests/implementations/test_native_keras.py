"""Files of Keras: what Keras saved is read, what we write it loads, nothing else passes."""

from pathlib import Path

import numpy as np
import pytest

from shared.files.errors import InputError
from shared.formats.file_kinds import FILE_KINDS, FileKind
from shared.interface import Implementation
from shared.spec import NETWORKS
from tests.implementations.native_files import make_contents, narrow, require_same

KERAS_ONLY = pytest.mark.parametrize("implementation", ["tf"], indirect=True)


@KERAS_ONLY
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
@pytest.mark.parametrize("system", ["dcgan64-lsgan", "conv28", "mlp28"])
def test_a_file_that_keras_saved_is_read(
    implementation: Implementation, tmp_path: Path, system: str
) -> None:
    from tf_impl.native_format import Networks

    contents = make_contents(narrow(system), "float64")
    state = implementation.create(contents.spec, dtype="float64")
    implementation.import_state(state, contents.arrays)
    path = tmp_path / "both.weights.h5"
    Networks(generator=state.generator, discriminator=state.discriminator).save_weights(path)
    weights = make_contents(narrow(system), "float64", NETWORKS)
    read = FILE_KINDS["keras"].read(path)
    require_same(read, weights)
    # batch_size is not in the shapes.
    assert read.spec == weights.spec.replace(batch_size=read.spec.batch_size)
    for network in NETWORKS:
        getattr(state, network).save_weights(tmp_path / "one.weights.h5")
        read = FILE_KINDS["keras"].read(tmp_path / "one.weights.h5")
        require_same(read, make_contents(weights.spec, "float64", (network,)))


@KERAS_ONLY
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.__delitem__("generator/batch_norm_1/vars/2"), "missing: generator/batch_norm"),
        (lambda f: f.create_dataset("generator/x/vars/0", data=[1.0]), "unexpected: generator/x/v"),
        (lambda f: f.create_dataset("optimizer/vars/0", data=[1.0]), "unexpected: optimizer/vars"),
        (
            lambda f: (
                f.pop("generator/batch_norm_1/vars/2"),
                f.create_dataset("generator/batch_norm_1/vars/2", data=[1.0]),
            ),
            r"generator/batch_norm_1/vars/2 \(1,\) instead of \(16,\)",
        ),
        (
            lambda f: f.create_dataset(
                "generator/x", (4,), "u1", external=[("/etc/hostname", 0, 4)]
            ),
            "expected generator/x in the file, found a link",
        ),
    ],
    ids=["missing", "unexpected", "optimizer", "wrong shape", "external"],
)
def test_a_weights_h5_is_read_strictly(
    implementation: Implementation, tmp_path: Path, change, message: str
) -> None:
    import h5py

    keras = FILE_KINDS["keras"]
    path = tmp_path / "a.weights.h5"
    keras.write(path, make_contents(carried=keras.carried))
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(InputError, match=message):
        keras.read(path)


@KERAS_ONLY
def test_a_model_of_keras_loads_its_bare_file(
    own: FileKind, implementation: Implementation, tmp_path: Path
) -> None:
    contents = make_contents(carried=("generator",))
    own.write(tmp_path / "g.weights.h5", contents)
    generator = implementation.create(narrow(), seed=1).generator
    generator.load_weights(tmp_path / "g.weights.h5")
    for name, array in contents.arrays.items():
        _, layer, parameter = name.split("/")
        loaded = getattr(getattr(generator, layer), parameter).numpy()
        np.testing.assert_array_equal(loaded, array, err_msg=name)
