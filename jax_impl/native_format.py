"""Flax' own format: a folder that orbax.checkpoint.StandardCheckpointer writes and restores.

A tree of "generator" and "discriminator" (each what nnx.update takes), and of their "…_optimizer"
(the fields of optax.ScaleByAdamState: count, mu and nu). One network alone is its bare tree. The
spec and the progress are JSON text in the checkpoint's custom metadata.
"""

import dataclasses
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx, traverse_util

from jax_impl.layers import plain_layers
from jax_impl.models import create_models
from shared.data.images import MAXIMUM_BYTES
from shared.files.checkpoint import encode_description
from shared.files.errors import InputError, refused_as
from shared.formats.native_contents import Contents, assemble
from shared.interface import Arrays
from shared.spec import NETWORKS, SystemSpec, optimizer_name

_MOMENTS = {"m": "mu", "v": "nu"}  # optax.ScaleByAdamState's names


def native_names(spec: SystemSpec) -> dict[str, str]:
    """Return each array's canonical name by its path: "generator_optimizer/mu/dense_1/kernel"."""
    names = {}
    for network in NETWORKS:
        part = f"{network}_optimizer"
        names[f"{part}/count"] = f"{part}/step"
        for layer in spec.layers(network):
            own = spec.name_in("orbax", network, layer, layer.name)
            for parameter in layer.parameters:
                name = f"{network}/{layer.name}/{parameter.name}"
                names[f"{network}/{own}/{parameter.name}"] = name
                for moment, field in _MOMENTS.items() if parameter.trainable else ():
                    names[f"{part}/{field}/{own}/{parameter.name}"] = optimizer_name(name, moment)
    return names


def write_native(path: Path, contents: Contents) -> None:
    """Write contents that fit: `FileKind.write`."""
    own = _turned(contents)
    arrays = {
        tuple(native.split("/")): np.array(own[name], order="C")
        for native, name in native_names(contents.spec).items()
        if name in own
    }
    tree = traverse_util.unflatten_dict(arrays)
    if contents.is_one_network:
        (tree,) = tree.values()
    description = encode_description(contents.spec, contents.progress)
    with ocp.StandardCheckpointer() as checkpointer:  # which takes absolute paths only
        checkpointer.save(path.absolute(), tree, custom_metadata=description)
        checkpointer.wait_until_finished()


def read_native(path: Path) -> Contents:
    """Read a file and check it: `FileKind.read`."""
    # Flax' layouts are the canonical ones: HWIO, HWOI (as layers.py keeps it) and (in, out).
    contents = assemble(path, *load(path), native_names, swapped=_turned_names)
    return dataclasses.replace(contents, arrays=_turned(contents))


def _turned_names(spec: SystemSpec) -> set[str]:
    """Return kernels, with their moments, that nnx.ConvTranspose has flipped by default."""
    layers = [(n, x) for n in NETWORKS for x in spec.layers(n) if x.kind == "conv_transpose"]
    kernels = [f"{n}/{x.name}/kernel" for n, x in layers if spec.architecture == "custom"]
    return {*kernels, *(optimizer_name(name, m) for name in kernels for m in _MOMENTS)}


def _turned(contents: Contents) -> Arrays:
    names = _turned_names(contents.spec)
    arrays = contents.arrays.items()
    return {n: np.flip(a, (0, 1)).swapaxes(2, 3) if n in names else a for n, a in arrays}


def run_native(path: Path, contents: Contents, inputs: Arrays) -> Arrays:
    """Load a file as Flax' users do, and run its networks: `FileKind.run`."""
    dtype = jnp.dtype(contents.dtype)
    results: Arrays = {}
    # On the CPU, because a GPU's matrix products round float32 more coarsely.
    with jax.enable_x64(dtype == jnp.float64), jax.default_device(jax.devices("cpu")[0]):
        with ocp.StandardCheckpointer() as checkpointer:
            restored = _without_value(checkpointer.restore(path.absolute()))
        saved = jax.tree.map(jnp.asarray, jax.device_get(restored))
        # Shapes only: drawing weights that the file replaces would take most of the time.
        models = nnx.eval_shape(lambda: create_models(contents.spec, plain_layers(dtype, dtype)))
        for network, model in zip(NETWORKS, models, strict=True):
            if network in contents.networks:
                nnx.update(model, saved.get(network, saved))
                results[network] = np.array(_evaluate(model, jnp.asarray(inputs[network])))
    return results


@nnx.jit
def _evaluate(model: nnx.Module, x: jax.Array) -> jax.Array:
    model.eval()
    return model(x)


# --- reading ---------------------------------------------------------------------------------


def load(path: Path) -> tuple[Arrays, dict[str, str]]:
    """Return every array by its path through the tree, and the custom metadata."""
    if not path.is_dir():
        there = "a file" if path.is_file() else "nothing"
        raise InputError(f"{path}: expected a folder of orbax, found {there}")
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax warns of what is an error below
    with (
        # Of its own coroutines, which it forgets where a file of the folder is damaged.
        warnings.catch_warnings(action="ignore", category=RuntimeWarning),
        refused_as(path, "a complete checkpoint of orbax"),
        ocp.StandardCheckpointer() as checkpointer,
    ):
        metadata = checkpointer.metadata(path.absolute())
        if metadata.item_metadata is None:
            raise ValueError("a folder without its arrays")
        # Asked for as NumPy's, because JAX without x64 would round float64.
        tree = metadata.item_metadata.tree
        leaves = jax.tree.leaves(tree)
        declared = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
        if declared > MAXIMUM_BYTES:  # than any state has: metadata may declare anything
            raise InputError(f"{path}: declares {declared:,} bytes, more than {MAXIMUM_BYTES:,}")
        target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)
        restored = _without_value(checkpointer.restore(path.absolute(), target))
        found = {}
        for keys, leaf in jax.tree_util.tree_leaves_with_path(restored):
            name, array = "/".join(str(getattr(k, "key", k)) for k in keys), np.array(leaf)
            is_counter = name.endswith("_optimizer/count") and array.dtype == np.int32
            found[name] = array.astype(np.int64) if is_counter else array
        return found, dict(metadata.custom_metadata or {})


def _without_value(tree: Any) -> Any:
    """Return a tree without the level that saving an nnx.State, not a pure dict, leaves in it."""
    match tree:
        case {"value": value, **rest} if not rest:
            return value
        case dict():
            return {name: _without_value(branch) for name, branch in tree.items()}
    return tree
