"""What each layer makes of a network's inputs, for finding the first one that differs."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from shared.spec import NetworkName, flattened_pixels

from .state import TrainState
from .train import discriminate, generate


def activations(
    state: TrainState, network: NetworkName, inputs: Tensor, *, training: bool = False
) -> dict[str, Tensor]:
    """Return the output of each layer with parameters by name: NHWC, or [batch, features].

    `inputs` are latents or images as `generate` and `discriminate` take them. The state does not
    change.
    """
    found: dict[str, Tensor] = {}
    modules = state.network(network).named_children()
    handles = [
        module.register_forward_hook(partial(_keep, found, name)) for name, module in modules
    ]
    run = generate if network == "generator" else discriminate
    try:
        run(state, inputs, training=training)
    finally:
        for handle in handles:
            handle.remove()
    pixels = flattened_pixels(state.spec)
    return {
        name: _in_hwc_order(x, pixels.get(f"{network}/{name}/bias")) for name, x in found.items()
    }


def _keep(
    found: dict[str, Tensor], name: str, module: torch.nn.Module, inputs: Any, output: Tensor
) -> None:
    # A copy: the activation that follows works in place.
    found[name] = output.clone()


def _in_hwc_order(x: Tensor, pixels: tuple[int, tuple[int, int, int]] | None) -> Tensor:
    """Return NCHW as NHWC; features in CHW order as HWC: docs/porting.md#reshape-order."""
    if x.ndim == 4:
        return x.permute(0, 2, 3, 1)
    if pixels is None:
        return x
    height, width, channels = pixels[1]
    return x.unflatten(1, (channels, height, width)).permute(0, 2, 3, 1).flatten(1)
