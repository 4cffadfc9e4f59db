"""Anybody's pair of NNX modules behind `shared.interface.Implementation`: docs/systems.md."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array as Tensor

from shared.interface import Array
from shared.module_pair import Call, PairAdapter
from shared.spec import SystemSpec
from shared.spec.compute import Compute

from .adapter import JaxImplementation
from .layers import create_adam
from .state import DTYPES, Settings, TrainState, leaves, select_device


class Network(nnx.Module):
    """A network as ours are: latents are [batch, latent_dim], scores [batch].

    `paths` are those of its layers, by the names of the system.
    """

    def __init__(self, network: nnx.Module, latent_shape: tuple[int, ...] = ()) -> None:
        self.network, self.latent_shape = network, latent_shape
        self.paths: tuple[tuple[str, tuple], ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        """Return images, or scores."""
        if self.latent_shape:
            return self.network(x.reshape(-1, *self.latent_shape))
        return self.network(x).reshape(-1)

    def name_layers(self, weights: Mapping[str, Mapping[str, nnx.Variable]]) -> None:
        """Give the layers the system's names."""
        modules = list(nnx.iter_modules(self))
        paths = {id(own): path for path, module in modules for own in vars(module).values()}
        self.paths = tuple((n, paths[id(next(iter(w.values())))]) for n, w in weights.items())


class ModulePair(PairAdapter, JaxImplementation):
    """Two `nnx.Module`s, and an `nnx.Optimizer` with Optax' Adam or AdamW of each where given."""

    create_adam = staticmethod(create_adam)
    conventions: ClassVar = {"batch_norm_running_variance": "biased"}

    def copied(self, dtype: str) -> Sequence[Any]:
        """Return copies of the networks; a kernel that is turned round becomes a canonical one."""
        generator, discriminator = (nnx.clone(module) for module in self.parts[:2])
        networks = Network(generator, self.latent_shape), Network(discriminator)
        cast = {jnp.dtype("float32"): DTYPES[dtype]}
        for network in networks:
            for _, layer in nnx.iter_modules(network):
                if isinstance(layer, nnx.ConvTranspose) and not layer.transpose_kernel:
                    layer.transpose_kernel = True
                    layer.kernel[...] = jnp.flip(layer.kernel[...], (0, 1))
                    layer.kernel = nnx.Param(layer.kernel[...].swapaxes(2, 3))
            own = nnx.state(network, (nnx.Param, nnx.BatchStat))
            nnx.update(network, jax.tree.map(lambda x: x.astype(cast.get(x.dtype, x.dtype)), own))
        given = zip(networks, self.parts[2:], strict=True)
        return *networks, *(own and nnx.Optimizer(n, own.tx, wrt=nnx.Param) for n, own in given)

    def calls(self, network: Network, x: Array, training: bool = False) -> tuple[list, Array]:
        """Return the layers that a network calls on latents or images, and its output."""
        found: list[Call] = []

        def keeping(call: Any) -> Any:
            def keep(layer: nnx.Module, x: Tensor, *options: Any, **named: Any) -> Tensor:
                y = call(layer, x, *options, **named)
                kind, fields = _read(layer)
                names = ("kernel", "scale", "bias", "mean", "var")
                weights = {n: w for n in names if (w := getattr(layer, n, None)) is not None}
                shapes = {n: w.shape for n, w in weights.items()}
                found.append(Call(kind, fields, weights, np.array(x), np.array(y), shapes))
                return y

            return keep

        statistics = jax.tree.map(jnp.copy, nnx.state(network))
        network.train() if training else network.eval()
        kinds = (nnx.Conv, nnx.ConvTranspose, nnx.Linear, nnx.BatchNorm)
        patches = [patch.object(kind, "__call__", keeping(kind.__call__)) for kind in kinds]
        for each in patches:
            each.start()
        try:
            output = network(jnp.asarray(x))
        finally:
            for each in patches:
                each.stop()
        network.train()
        nnx.update(network, statistics)
        return found, np.array(output)

    def state_of(self, spec: SystemSpec, dtype: str, *parts: Any) -> TrainState:
        """Return a state of copied parts, with their own weights and Adam as it starts."""
        for network in parts[:2]:
            network.train()
        graph, shapes = nnx.split(parts)
        compute = Compute(dtype, fast=False)
        settings = Settings(spec, compute, graph, jax.tree.structure(shapes), None)
        return TrainState(spec, compute, select_device("cpu"), settings, leaves(parts))


def _read(m: Any) -> tuple[str, dict[str, Any]]:
    """Return a layer as a system file has it."""
    if isinstance(m, nnx.BatchNorm):
        fields = {"epsilon": m.epsilon, "momentum": round(1 - m.momentum, 12)}
        return "batch_norm", fields | {"scale": m.use_scale, "bias": m.use_bias}
    fields = {"features": m.out_features, "bias": m.use_bias}
    if isinstance(m, nnx.Linear):
        return "dense", fields
    padding = m.padding
    if isinstance(padding, str):
        padding = "same" if padding == "SAME" else 0
    elif not isinstance(padding, int):
        padding = padding[0]
    stride = m.strides if isinstance(m.strides, int) else m.strides[0]
    sizes = {"size": m.kernel_size[0], "stride": stride or 1, "padding": padding}
    return "conv" if isinstance(m, nnx.Conv) else "conv_transpose", fields | sizes
