"""Anybody's pair of PyTorch modules behind `shared.interface.Implementation`: docs/systems.md."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shared.interface import Array
from shared.module_pair import PairAdapter
from shared.spec import SystemSpec
from shared.spec.compute import Compute
from shared.spec.streams import initial_state

from .adapter import PyTorchImplementation
from .checkpoint import import_state, to_canonical
from .layers import create_adam
from .state import DTYPES, TrainState


class Network(nn.Module):
    """A network as ours are: latents are [batch, latent_dim], scores [batch]."""

    def __init__(self, network: nn.Module, latent_shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.network, self.latent_shape = network, latent_shape

    def forward(self, x: Tensor) -> Tensor:
        """Return images NCHW, or scores."""
        y = self.network(self.given(x))
        return y if self.latent_shape else y.reshape(-1)

    def given(self, x: Tensor) -> Tensor:
        """Return an input as the network itself takes it."""
        return (x.reshape(-1, *self.latent_shape) if self.latent_shape else x).contiguous()


class ModulePair(PairAdapter, PyTorchImplementation):
    """Two `nn.Module`s, and an optimizer of each where given."""

    package, create_adam = "torch", staticmethod(create_adam)
    canonical = staticmethod(to_canonical)
    usual_initializer = "uniform_fan_in"

    def copied(self, dtype: str) -> Sequence[Any]:
        """Return copies of all, made together: an optimizer holds a network's parameters."""
        generator, discriminator, *optimizers = copy.deepcopy(self.parts)
        generator.to(DTYPES[dtype]), discriminator.to(DTYPES[dtype])
        return Network(generator, self.latent_shape), Network(discriminator), *optimizers

    @torch.no_grad()
    def run(self, network: nn.Module, x: Array, training: bool) -> Tensor:
        """Return what a network makes of latents or images; it stays as it is."""
        statistics = copy.deepcopy(network.state_dict())
        output = network.train(training)(torch.from_numpy(x).movedim(-1, 1))
        network.train().load_state_dict(statistics)
        return output

    def settings(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return an optimizer's kind and settings by PyTorch's names."""
        given = optimizer.param_groups[0]
        betas = zip(("beta1", "beta2"), given.get("betas", ()), strict=False)
        return {"kind": type(optimizer).__name__.lower()} | given | dict(betas)

    def name_layers(self, network: Network, layers: dict[str, nn.Module]) -> None:
        """Give layers the system's names and its order, which is then that of gradients."""
        network._modules = {**layers, **network._modules}

    def state_of(self, spec: SystemSpec, dtype: str, *parts: Any) -> TrainState:
        """Return a state of copied parts, with their own weights and optimizers as they start."""
        networks = parts[:2]
        own = [copy.deepcopy(network.state_dict()) for network in networks]
        for network, optimizer in zip(networks, parts[2:], strict=True):
            for parameter in network.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()  # so that it has what it keeps
            optimizer.zero_grad()
            if isinstance(optimizer, torch.optim.SGD):  # which does not count
                optimizer.register_step_post_hook(
                    lambda own, *_: [held["step"].add_(1) for held in own.state.values()]  # type: ignore[arg-type]
                )
        compute, place = Compute(dtype, fast=False), torch.device("cpu")
        state = TrainState(spec, compute, place, *parts)
        import_state(state, initial_state(spec, 0))
        for network, weights in zip(networks, own, strict=True):
            network.load_state_dict(weights)
        return state
