"""Anybody's pair of NNX modules behind `shared.interface.Implementation`: docs/systems.md."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array as Tensor

from shared.interface import Array
from shared.module_pair import PairAdapter
from shared.spec import SystemSpec
from shared.spec.compute import Compute

from .adapter import JaxImplementation
from .layers import create_adam
from .state import DTYPES, Settings, TrainState, leaves, select_device

KINDS = {"scale_by_adam": "adam", "scale_by_amsgrad": "amsgrad"}
KINDS |= {"scale_by_rms": "rmsprop", "scale_by_stddev": "rmsprop"}
OTHERS = ("scale", "trace", "add_decayed_weights", "clip", "clip_by_global_norm")


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


class ModulePair(PairAdapter, JaxImplementation):
    """Two `nnx.Module`s, and an `nnx.Optimizer` of each where given."""

    package, create_adam = "flax", staticmethod(create_adam)
    usual_initializer = "lecun_normal"
    conventions: ClassVar = {
        "batch_norm_running_variance": "biased",
        "leaky_relu_gradient_at_zero": "one",  # of nnx.leaky_relu
    }

    def copied(self, dtype: str) -> Sequence[Any]:
        """Return copies of the networks; a kernel that is flipped becomes a canonical one."""
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

    def run(self, network: Network, x: Array, training: bool) -> Tensor:
        """Return what a network makes of latents or images; it stays as it is."""
        statistics = jax.tree.map(jnp.copy, nnx.state(network))
        network.train() if training else network.eval()
        output = network(jnp.asarray(x))
        network.train()
        nnx.update(network, statistics)
        return output

    def settings(self, optimizer: nnx.Optimizer) -> dict[str, Any]:
        """Return an optimizer's kind and settings by Optax' names; ValueError for others."""
        found: dict[str, Any] = {"kind": "sgd", "corrected_maximum": True, "step_size": -1.0}
        for part, name, value in _closed_over(optimizer.tx.update):
            if part not in (*KINDS, *OTHERS):
                raise ValueError(f"received {part}; expected {', '.join((*KINDS, *OTHERS))}")
            found["momentum" if (part, name) == ("trace", "decay") else name] = value
            found["kind"] = KINDS.get(part, found["kind"])
            found["centered"] = found.get("centered") or part == "scale_by_stddev"
        if found["kind"] == "adam" and "weight_decay" in found:
            found["kind"] = "adamw"
        return found | {"learning_rate": -found["step_size"]}

    def name_layers(self, network: Network, layers: dict[str, nnx.Module]) -> None:
        """Give layers the system's names."""
        paths = {id(module): path for path, module in nnx.iter_modules(network)}
        network.paths = tuple((name, paths[id(layer)]) for name, layer in layers.items())

    def state_of(self, spec: SystemSpec, dtype: str, *parts: Any) -> TrainState:
        """Return a state of copied parts, with their own weights and optimizers as they start."""
        for network in parts[:2]:
            network.train()
        graph, shapes = nnx.split(parts)
        compute = Compute(dtype, fast=False)
        settings = Settings(spec, compute, graph, jax.tree.structure(shapes), None)
        return TrainState(spec, compute, select_device("cpu"), settings, leaves(parts))


def _closed_over(function: Callable) -> Iterator[tuple[str, str, Any]]:
    """Yield the settings that a transformation of Optax holds: whose, their names and values."""
    names = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, held in ((name, cell.cell_contents) for name, cell in names):
        for value in held if isinstance(held, tuple) else (held,):
            if hasattr(value, "__code__"):
                yield from _closed_over(value)
            else:
                yield function.__qualname__.split(".")[0], name, value
