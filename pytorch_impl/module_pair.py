"""Anybody's pair of PyTorch modules behind `shared.interface.Implementation`: docs/systems.md."""

import copy
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from shared.interface import Array
from shared.module_pair import Call, PairAdapter
from shared.spec import SystemSpec
from shared.spec.compute import Compute
from shared.spec.streams import initial_state

from .adapter import PyTorchImplementation
from .checkpoint import NAMES, import_state, to_canonical
from .layers import create_adam
from .state import DTYPES, TrainState


class Network(nn.Module):
    """A network as ours are: latents are [batch, latent_dim], scores [batch].

    Its layers' tensors are attributes under the names of the system.
    """

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

    def name_layers(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Give the layers the system's names."""
        for name, own in weights.items():
            setattr(self, name, SimpleNamespace(**{NAMES[key]: x for key, x in own.items()}))


class ModulePair(PairAdapter, PyTorchImplementation):
    """Two `nn.Module`s, and the Adam or AdamW of each where given."""

    create_adam = staticmethod(create_adam)

    def copied(self, dtype: str) -> Sequence[Any]:
        """Return copies of all, made together: an optimizer holds a network's parameters."""
        generator, discriminator, *optimizers = copy.deepcopy(self.parts)
        generator.to(DTYPES[dtype]), discriminator.to(DTYPES[dtype])
        return Network(generator, self.latent_shape), Network(discriminator), *optimizers

    @torch.no_grad()
    def calls(self, network: nn.Module, x: Array, training: bool = False) -> tuple[list, Array]:
        """Return the layers that a network calls on latents or images, and its output."""
        found: list[Call] = []

        def keep(module: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> None:
            kind, fields, weights = _read(module)
            own = {key: w for key, w in weights.items() if w is not None}
            shapes = {key: to_canonical(w).shape for key, w in own.items()}
            found.append(Call(kind, fields, own, _to_numpy(inputs[0]), _to_numpy(y), shapes))

        known = (module for module in network.modules() if isinstance(module, _KNOWN))
        handles = [module.register_forward_hook(keep) for module in known]
        statistics = copy.deepcopy(network.state_dict())
        try:
            output = network.train(training)(torch.from_numpy(x).movedim(-1, 1))
        finally:
            for handle in handles:
                handle.remove()
        network.train().load_state_dict(statistics)
        return found, _to_numpy(output)

    def state_of(self, spec: SystemSpec, dtype: str, *parts: Any) -> TrainState:
        """Return a state of copied parts, with their own weights and Adam as it starts."""
        networks = parts[:2]
        own = [copy.deepcopy(network.state_dict()) for network in networks]
        compute, place = Compute(dtype, fast=False), torch.device("cpu")
        state = TrainState(spec, compute, place, *parts)
        import_state(state, initial_state(spec, 0))
        for network, weights in zip(networks, own, strict=True):
            network.load_state_dict(weights)
        return state


_KNOWN = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm2d, nn.BatchNorm1d, nn.Upsample)


def _read(m: Any) -> tuple[str, dict[str, Any], dict[str, Tensor | None]]:
    """Return a module as a system file has it, and its tensors by canonical name."""
    fields: dict[str, Any]
    match m:
        case nn.Conv2d() | nn.ConvTranspose2d():
            kind = "conv" if isinstance(m, nn.Conv2d) else "conv_transpose"
            padding: Any = m.padding
            if not isinstance(padding, str):
                padding = padding[0], padding[0] - m.output_padding[0]
                padding = padding if m.output_padding[0] else padding[0]
            sizes = {"size": m.kernel_size[0], "stride": m.stride[0], "padding": padding}
            fields = {"features": m.out_channels, **sizes, "bias": m.bias is not None}
            return kind, fields, {"kernel": m.weight, "bias": m.bias}
        case nn.Linear():
            fields = {"features": m.out_features, "bias": m.bias is not None}
            return "dense", fields, {"kernel": m.weight, "bias": m.bias}
        case nn.BatchNorm2d() | nn.BatchNorm1d():
            fields = {"epsilon": m.eps, "momentum": m.momentum, "scale": m.affine, "bias": m.affine}
            moving = {"mean": m.running_mean, "var": m.running_var}
            return "batch_norm", fields, {"scale": m.weight, "bias": m.bias, **moving}
        case _:
            fields = {"size": int(m.scale_factor), "aligned_corners": bool(m.align_corners)}
            return f"upsample_{m.mode}", fields, {}


def _to_numpy(x: Tensor) -> Array:
    """Return a copy as an array, images as NHWC."""
    return (x.movedim(1, -1) if x.ndim == 4 else x).detach().numpy().copy()
