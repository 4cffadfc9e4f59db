"""The networks as Flax' users have them: this package's modules, their names, their loading."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from jax_impl.layers import plain_layers
from jax_impl.models import create_models
from shared.convert.native_contents import NativeContents
from shared.spec import NETWORKS, SystemSpec, optimizer_name

__all__ = ["native_names", "run_native", "without_value"]

_MOMENTS = {"m": "mu", "v": "nu"}  # optax.ScaleByAdamState's names


def run_native(
    path: str | os.PathLike[str], contents: NativeContents, latents: np.ndarray, images: np.ndarray
) -> dict[str, np.ndarray]:
    """Load a file as this framework's users do, around `read_native`, and run its networks.

    `contents` names the networks. Returns images under "generator" and scores [batch]
    under "discriminator", both by the running statistics.
    """
    dtype = jnp.dtype(contents.dtype)
    inputs = {"generator": latents, "discriminator": images}
    results: dict[str, np.ndarray] = {}
    # On the CPU, because a GPU's matrix products round float32 more coarsely.
    with jax.enable_x64(dtype == jnp.float64), jax.default_device(jax.devices("cpu")[0]):
        with ocp.StandardCheckpointer() as checkpointer:
            restored = without_value(checkpointer.restore(Path(path).absolute()))
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


def native_names(spec: SystemSpec) -> dict[str, str]:
    """Return the canonical name of every array that a whole file holds, by its own name.

    "generator_optimizer/mu/conv_transpose_1/kernel" is the path through the tree.
    """
    names = {}
    for network in NETWORKS:
        part = f"{network}_optimizer"
        names[f"{part}/count"] = f"{part}/step"
        for name, parameter in spec.parameters(network).items():
            names[name] = name
            if parameter.trainable:
                for moment, field in _MOMENTS.items():
                    own = f"{part}/{field}/{name.removeprefix(f'{network}/')}"
                    names[own] = optimizer_name(name, moment)
    return names


def without_value(tree: Any) -> Any:
    """Return a tree without the level that saving an nnx.State, not a pure dict, leaves in it."""
    match tree:
        case {"value": value, **rest} if not rest:
            return value
        case dict():
            return {name: without_value(branch) for name, branch in tree.items()}
    return tree
