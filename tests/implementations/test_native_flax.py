"""Folders of Flax and orbax: what they saved is read, what we write they load."""

from pathlib import Path

import numpy as np
import pytest

from shared.convert.__main__ import verification_inputs
from shared.files.errors import InputError
from shared.formats.file_kinds import FILE_KINDS, FileKind
from shared.interface import Implementation
from shared.spec import NETWORKS
from tests.implementations.native_files import make_contents, narrow
from tests.tiers import one_in

JAX_ONLY = pytest.mark.parametrize("implementation", ["jax"], indirect=True)


@JAX_ONLY
@pytest.mark.parametrize("system", one_in(3, ["dcgan64", "conv28", "mlp28"]))
def test_a_folder_that_flax_saved_is_read(
    implementation: Implementation, tmp_path: Path, system: str
) -> None:
    import jax
    import orbax.checkpoint as ocp
    from flax import nnx

    state = implementation.create(narrow(system), dtype="float64")
    first = next(iter(state.spec.parameters("discriminator"))).split("/")[1]
    with jax.enable_x64(True):
        models = {n: state.settings.merge(state.arrays).network(n) for n in NETWORKS}
        trees = {
            "state": {name: nnx.state(model) for name, model in models.items()},
            "pure": nnx.to_pure_dict(nnx.state(models["discriminator"])),
        }
        with ocp.StandardCheckpointer() as checkpointer:
            for name, tree in trees.items():
                checkpointer.save(tmp_path / name, tree)
        kernel = np.array(getattr(models["discriminator"], first).kernel[...])
    orbax = FILE_KINDS["orbax"]
    for name, held in (("state", NETWORKS), ("pure", ("discriminator",))):
        read = orbax.read(tmp_path / name)
        assert (read.networks, read.dtype, read.spec_is_stored) == (held, "float64", False)
        assert read.spec.name == system
        np.testing.assert_array_equal(read.arrays[f"discriminator/{first}/kernel"], kernel)
        orbax.run(tmp_path / name, read, verification_inputs(read))


@JAX_ONLY
def test_a_bare_folder_is_the_tree_of_one_network(own: FileKind, tmp_path: Path) -> None:
    import orbax.checkpoint as ocp

    contents = make_contents(carried=("generator",))
    own.write(tmp_path / "g.orbax", contents)
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "g.orbax")
    expected = contents.arrays["generator/batch_norm_4/mean"]
    np.testing.assert_array_equal(restored["batch_norm_4"]["mean"], expected)


@JAX_ONLY
def test_optax_takes_the_optimizer_of_a_folder(
    implementation: Implementation, tmp_path: Path
) -> None:
    import optax
    import orbax.checkpoint as ocp

    contents = make_contents()
    FILE_KINDS["orbax"].write(tmp_path / "a.orbax", contents)
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "a.orbax")
    state = optax.ScaleByAdamState(**restored["generator_optimizer"])
    assert state.count == contents.arrays["generator_optimizer/step"]
    expected = contents.arrays["generator_optimizer/batch_norm_2/scale/v"]
    np.testing.assert_array_equal(state.nu["batch_norm_2"]["scale"], expected)


@JAX_ONLY
def test_an_orbax_folder_is_read_strictly(implementation: Implementation, tmp_path: Path) -> None:
    import orbax.checkpoint as ocp

    tree = {
        "generator": {"conv_transpose_1": {"kernel": np.zeros((4, 4, 16, 5), "f4")}},
        "x": {"y": np.zeros(2)},
    }
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "a.orbax", tree, custom_metadata={"author": "somebody"})
    with pytest.raises(InputError, match=r"missing: .*generator/batch_norm_1.*unexpected: x/y"):
        FILE_KINDS["orbax"].read(tmp_path / "a.orbax")
