"""A whole network forward and backward, by walking the layers of the spec."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.interface import Array, Arrays
from shared.reference import layers as functions
from shared.reference import resampling
from shared.reference.layers import Saved
from shared.spec import Conventions, Layer, NetworkName, SystemSpec


@dataclass(frozen=True)
class Pass:
    """One forward pass: `activations` by layer name, `statistics` are BN's moved running ones."""

    output: Array
    activations: Arrays
    statistics: Arrays
    saved: tuple[tuple[Layer, Saved], ...]


def forward(
    spec: SystemSpec,
    network: NetworkName,
    arrays: Arrays,
    x: Array,
    conventions: Conventions,
    *,
    training: bool,
) -> Pass:
    """Run a network on latents [batch, latent_dim] or images NHWC.

    The output is images NHWC or scores [batch]. `training` normalises by the batch's statistics.
    """
    conventions = spec.own_conventions(conventions)
    asked = conventions.batch_norm_passes == "as_asked"
    training = training if asked else conventions.batch_norm_passes == "always_batch"
    activations: Arrays = {}
    statistics: Arrays = {}
    saved: list[tuple[Layer, Saved]] = []
    for layer in _layers(spec, network, conventions):
        prefix = f"{network}/{layer.name}"
        p: Arrays = {q.name: arrays[f"{prefix}/{q.name}"] for q in layer.parameters}
        if layer.kind == "batch_norm":
            x, keep, moved = _batch_norm(x, p, layer, conventions, training)
            statistics |= {f"{prefix}/{name}": array for name, array in moved.items()}
        else:
            x, keep = _forward_layer(layer, x, p, conventions)
        activations[layer.name] = x
        saved.append((layer, keep))
    output = x[:, 0] if network == "discriminator" else x
    return Pass(output, activations, statistics, tuple(saved))


def _layers(spec: SystemSpec, network: NetworkName, conventions: Conventions) -> tuple[Layer, ...]:
    """Return the spec's layers with the activations that the conventions have."""
    layers = list(spec.layers(network))
    if conventions.image_channels in ("reversed", f"reversed_by_{network[0]}"):
        reverse = Layer("reversed", "reverse_channels", spec.image_shape)
        layers = [*layers, reverse] if network == "generator" else [reverse, *layers]
    if network == "generator" and conventions.generator_activation != "relu":
        kind = conventions.generator_activation
        layers = [dataclasses.replace(x, kind=kind) if x.kind == "relu" else x for x in layers]
    output = getattr(conventions, f"{network}_output")
    if output != "as_named":  # another activation after the last layer that has parameters
        last = max(i for i, layer in enumerate(layers) if layer.parameters)
        rest = [layer for layer in layers[last + 1 :] if layer.kind not in ("tanh", "sigmoid")]
        own = [] if output == "none" else [Layer(output, output, layers[-1].output_shape)]
        layers = [*layers[: last + 1], *rest, *own]
    return tuple(layers)


def backward(network: NetworkName, run: Pass, gradient: Array) -> tuple[Array, Arrays]:
    """Return the gradient of a pass' input and of every trainable parameter."""
    gradients: Arrays = {}
    dy = gradient[:, None] if network == "discriminator" else gradient
    for layer, saved in reversed(run.saved):
        dy, found = _backward_layer(layer, saved, dy)
        for name in (p.name for p in layer.parameters if p.trainable):
            gradients[f"{network}/{layer.name}/{name}"] = found[name]
    return dy, gradients


def _forward_layer(
    layer: Layer, x: Array, p: Arrays, conventions: Conventions
) -> tuple[Array, Saved]:
    match layer.kind:
        case "conv" | "conv_transpose":
            is_conv = layer.kind == "conv"
            run = functions.conv_forward if is_conv else functions.conv_transpose_forward
            arrangement = conventions.conv_kernel if is_conv else conventions.conv_transpose_kernel
            kernel = _arranged(p["kernel"], arrangement)
            y, saved = run(x, kernel, layer.stride, layer.padding, conventions.padding_alignment)
            return y + p.get("bias", 0.0), (saved, arrangement)
        case "dense":
            return functions.dense_forward(x, p["kernel"], p.get("bias", 0.0))
        case "relu":
            return functions.relu_forward(x)
        case "reverse_channels":
            return x[..., ::-1], None
        case "leaky_relu":
            slope = _own("leaky_relu_slope", layer.slope, conventions)
            return functions.leaky_relu_forward(x, slope, conventions.leaky_relu_gradient_at_zero)
        case "tanh":
            return functions.tanh_forward(x)
        case "sigmoid":
            return functions.sigmoid_forward(x)
        case "flatten":
            return functions.flatten_forward(x, conventions.flatten_order)
        case "reshape":
            return functions.reshape_forward(x, layer.output_shape, conventions.flatten_order)
        case "upsample_nearest" | "upsample_bilinear" | "average_pool":
            rows, columns = (_resampling_matrix(layer, n) for n in x.shape[1:3])
            return resampling.separable_forward(x, rows, columns)
        case "max_pool":
            return resampling.max_pool_forward(x, layer.size, layer.stride, layer.padding)
        case "global_average_pool":
            return resampling.global_average_pool_forward(x)
        case "zero_pad":
            return functions.framed(x, layer.padding), layer.padding
        case "dropout":  # as in inference: its draws are every framework's own
            return x, None
    raise ValueError(f"unknown kind of layer {layer.kind!r}")


def _resampling_matrix(layer: Layer, size: int) -> Array:
    """Return what resamples an axis of `size` pixels."""
    match layer.kind:
        case "average_pool":
            return resampling.averaging_matrix(size, layer.size, layer.stride)
        case "upsample_nearest":
            return resampling.nearest_matrix(size, layer.size)
    return resampling.bilinear_matrix(size, layer.size, layer.aligned_corners)


def _own(field: str, of_layer: float | None, conventions: Conventions) -> float:
    """Return a layer's own number, if it has one and the conventions do not have another."""
    value: float = getattr(conventions, field)
    is_canonical = value == getattr(_CANONICAL, field)
    return value if of_layer is None or not is_canonical else of_layer


_CANONICAL = Conventions()
_BACKWARD: dict[str, Callable[..., Any]] = {
    "conv": functions.conv_backward,
    "conv_transpose": functions.conv_transpose_backward,
    "relu": functions.relu_backward,
    "leaky_relu": functions.leaky_relu_backward,
    "tanh": functions.tanh_backward,
    "sigmoid": functions.sigmoid_backward,
    "flatten": functions.flatten_backward,
    "reshape": functions.reshape_backward,
    "reverse_channels": lambda _, dy: dy[..., ::-1],
    "upsample_nearest": resampling.separable_backward,
    "upsample_bilinear": resampling.separable_backward,
    "average_pool": resampling.separable_backward,
    "max_pool": resampling.max_pool_backward,
    "global_average_pool": resampling.global_average_pool_backward,
    "zero_pad": lambda padding, dy: functions.unframed(dy, padding),
    "dropout": lambda _, dy: dy,
}


def _backward_layer(layer: Layer, saved: Saved, dy: Array) -> tuple[Array, Arrays]:
    """Return the gradients of the input and, by name, of what may be trained."""
    if layer.kind == "batch_norm":
        parts = zip(saved, np.array_split(dy, len(saved)), strict=True)
        found = [functions.batch_norm_backward(kept, part) for kept, part in parts]
        dx, dscale, dbias = zip(*found, strict=True)
        return np.concatenate(dx), {"scale": np.sum(dscale, axis=0), "bias": np.sum(dbias, axis=0)}
    if layer.kind == "dense":
        dx, dkernel, dbias = functions.dense_backward(saved, dy)
        return dx, {"kernel": dkernel, "bias": dbias}
    if layer.kind in ("conv", "conv_transpose"):
        dx, dkernel = _BACKWARD[layer.kind](saved[0], dy)
        return dx, {"kernel": _arranged(dkernel, saved[1]), "bias": dy.sum(axis=(0, 1, 2))}
    return _BACKWARD[layer.kind](saved, dy), {}


def _arranged(kernel: Array, arrangement: str) -> Array:
    """Return a kernel as a convention has it; the same again undoes it."""
    match arrangement:
        case "flipped":
            return kernel[::-1, ::-1]
        case "transposed":
            return kernel.swapaxes(0, 1)
    return kernel


def _batch_norm(
    x: Array, p: Arrays, layer: Layer, conventions: Conventions, training: bool
) -> tuple[Array, Saved, Arrays]:
    """Return the output, what the backward pass needs, and the statistics that have moved."""
    scale, bias = p.get("scale", 1.0), p.get("bias", 0.0)
    epsilon = _own("batch_norm_epsilon", layer.epsilon, conventions)
    momentum = _own("batch_norm_momentum", layer.momentum, conventions)
    settings = epsilon, conventions.batch_norm_divisor
    running, estimator = (p["mean"], p["var"]), conventions.batch_norm_running_variance
    if not training:
        y, saved = functions.batch_norm_inference(x, scale, bias, *running, *settings)
        return y, [saved], {}
    outputs, kept, moved = [], [], []
    for part in np.array_split(x, conventions.batch_norm_replicas):
        y, saved, *own = functions.batch_norm_forward(part, scale, bias, *settings)
        outputs.append(y)
        kept.append(saved)
        count = part.size // part.shape[-1]
        moved.append(functions.running_statistics(running, own, count, momentum, estimator))
    mean, variance = (np.mean(parts, axis=0) for parts in zip(*moved, strict=True))
    return np.concatenate(outputs), kept, {"mean": mean, "var": variance}


def add(first: Arrays, second: Arrays) -> Arrays:
    """Return the sum of two sets of gradients of the same parameters."""
    return {name: first[name] + second[name] for name in first}
