"""The networks as PyTorch's users have them: pytorch/examples' DCGAN, its names, its loading."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import nn

from shared.convert.native_contents import NativeContents
from shared.spec import (
    NETWORKS,
    Layer,
    NetworkName,
    Pixels,
    SystemSpec,
    flattened_pixels,
    optimizer_name,
)

__all__ = [
    "batch_counters",
    "create_native_network",
    "native_names",
    "pixels_by_array",
    "run_native",
]

_BATCH_NORM_NAMES = {
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_LAYER_NAMES = {"kernel": "weight", "bias": "bias"}
_MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}


def run_native(
    path: str | os.PathLike[str], contents: NativeContents, latents: np.ndarray, images: np.ndarray
) -> dict[str, np.ndarray]:
    """Load a file as this framework's users do, around `read_native`, and run its networks.

    `contents` names the networks. Returns images under "generator" and scores [batch]
    under "discriminator", both by the running statistics.
    """
    saved = torch.load(path, map_location="cpu", weights_only=True)
    results: dict[str, np.ndarray] = {}
    for network in contents.networks:
        module = create_native_network(contents.spec, network)
        module.to(getattr(torch, contents.dtype)).eval()
        module.load_state_dict(saved.get(network, saved))
        x = torch.from_numpy(latents if network == "generator" else images)
        if network == "discriminator":
            x = x.permute(0, 3, 1, 2).contiguous()
        elif contents.spec.layers("generator")[0].kind == "reshape":
            x = x[:, :, None, None]
        with torch.no_grad():
            y = module.get_submodule("main")(x)
        y = y.permute(0, 2, 3, 1) if network == "generator" else y.reshape(-1)
        results[network] = y.numpy()
    return results


def create_native_network(spec: SystemSpec, network: NetworkName) -> nn.Module:
    """Return a network whose state_dict has the names of pytorch/examples' DCGAN."""
    module = nn.Module()
    module.main = nn.Sequential(*(_module(layer) for _, layer in _main(spec, network)))
    return module


def _main(spec: SystemSpec, network: NetworkName) -> list[tuple[int, Layer]]:
    """Return the layers with their indices in the nn.Sequential called main."""
    # The example's latents have the shape [batch, latent_dim, 1, 1] from the start.
    layers = spec.layers(network)
    return list(enumerate(layers[1:] if layers[0].kind == "reshape" else layers))


def native_names(spec: SystemSpec) -> dict[str, str]:
    """Return the canonical name of every array that a whole file holds, by its own name.

    "generator/main.0.weight" is entry "main.0.weight" of the state_dict under "generator".
    "generator_optimizer/step" stands for the step that every parameter has in its Adam.
    """
    names = {}
    for network in NETWORKS:
        trained = []
        names[f"{network}_optimizer/step"] = f"{network}_optimizer/step"
        for i, layer in _main(spec, network):
            own = _BATCH_NORM_NAMES if layer.kind == "batch_norm" else _LAYER_NAMES
            for parameter in layer.parameters:
                name = f"{network}/{layer.name}/{parameter.name}"
                names[f"{network}/main.{i}.{own[parameter.name]}"] = name
                trained += [name] if parameter.trainable else []
        for i, name in enumerate(trained):
            state = f"{network}_optimizer/state/{i}"
            names |= {f"{state}/{k}": optimizer_name(name, m) for m, k in _MOMENTS.items()}
    return names


def batch_counters(spec: SystemSpec) -> list[str]:
    """Return the names of BN's counters, which a fixed momentum never reads."""
    return [
        f"{network}/main.{i}.num_batches_tracked"
        for network in NETWORKS
        for i, layer in _main(spec, network)
        if layer.kind == "batch_norm"
    ]


def pixels_by_array(spec: SystemSpec) -> dict[str, Pixels]:
    """Return `flattened_pixels` of the parameters and of their moments."""
    pixels = flattened_pixels(spec)
    return pixels | {optimizer_name(n, m): where for n, where in pixels.items() for m in _MOMENTS}


def _module(layer: Layer) -> nn.Module:
    shape = layer.parameters[0].shape if layer.parameters else ()
    has_bias = any(p.name == "bias" for p in layer.parameters)
    match layer.kind:
        case "conv":
            return nn.Conv2d(shape[2], shape[3], 4, layer.stride, layer.padding, bias=has_bias)
        case "conv_transpose":
            size, stride = (shape[3], shape[2], 4), layer.stride
            return nn.ConvTranspose2d(*size, stride, layer.padding, bias=has_bias)
        case "batch_norm":
            is_image = len(layer.output_shape) == 3
            return nn.BatchNorm2d(shape[0]) if is_image else nn.BatchNorm1d(shape[0])
        case "dense":
            return nn.Linear(shape[0], shape[1])
        case "leaky_relu":
            return nn.LeakyReLU(0.2)
        case "reshape":
            height, width, channels = layer.output_shape
            return nn.Unflatten(1, (channels, height, width))
    plain = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "flatten": nn.Flatten}
    return plain[layer.kind]()
