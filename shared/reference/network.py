"""A whole network forward and backward, by walking the layers of the spec."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from shared.interface import Array, Arrays
from shared.reference import layers as functions
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
    asked = conventions.batch_norm_passes == "as_asked"
    training = training if asked else conventions.batch_norm_passes == "always_batch"
    activations: Arrays = {}
    statistics: Arrays = {}
    saved: list[tuple[Layer, Saved]] = []
    for layer in _layers(spec, network, conventions):
        prefix = f"{network}/{layer.name}"
        p: Arrays = {q.name: arrays[f"{prefix}/{q.name}"] for q in layer.parameters}
        if layer.kind == "batch_norm":
            x, keep = _batch_norm(x, p, conventions, training, prefix, statistics)
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
    return tuple(layers if output == "as_named" else _with_output(layers, output))


def _with_output(layers: list[Layer], output: Literal["none", "tanh", "sigmoid"]) -> list[Layer]:
    """Return the layers with another activation after the last one that has parameters."""
    last = max(i for i, layer in enumerate(layers) if layer.parameters)
    rest = [layer for layer in layers[last + 1 :] if layer.kind not in ("tanh", "sigmoid")]
    if output == "none":
        return layers[: last + 1] + rest
    return [*layers[: last + 1], *rest, Layer(output, output, layers[-1].output_shape)]


def backward(network: NetworkName, run: Pass, gradient: Array) -> tuple[Array, Arrays]:
    """Return the gradient of a pass' input and of every trainable parameter."""
    gradients: Arrays = {}
    dy = gradient[:, None] if network == "discriminator" else gradient
    for layer, saved in reversed(run.saved):
        names = [f"{network}/{layer.name}/{p.name}" for p in layer.parameters if p.trainable]
        dy, parameter_gradients = _backward_layer(layer, saved, dy)
        gradients.update(zip(names, parameter_gradients, strict=True))
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
            return functions.dense_forward(x, p["kernel"], p["bias"])
        case "relu":
            return functions.relu_forward(x)
        case "reverse_channels":
            return x[..., ::-1], None
        case "leaky_relu":
            slope = conventions.leaky_relu_slope
            return functions.leaky_relu_forward(x, slope, conventions.leaky_relu_gradient_at_zero)
        case "tanh":
            return functions.tanh_forward(x)
        case "sigmoid":
            return functions.sigmoid_forward(x)
        case "flatten":
            return functions.flatten_forward(x, conventions.flatten_order)
        case "reshape":
            return functions.reshape_forward(x, layer.output_shape, conventions.flatten_order)
    raise ValueError(f"unknown kind of layer {layer.kind!r}")


_BACKWARD: dict[str, Callable[..., Any]] = {
    "conv": functions.conv_backward,
    "conv_transpose": functions.conv_transpose_backward,
    "relu": functions.relu_backward,
    "leaky_relu": functions.leaky_relu_backward,
    "tanh": functions.tanh_backward,
    "sigmoid": functions.sigmoid_backward,
    "flatten": functions.flatten_backward,
    "reshape": functions.reshape_backward,
}


def _backward_layer(layer: Layer, saved: Saved, dy: Array) -> tuple[Array, tuple[Array, ...]]:
    """Return the gradients of the input and of the trainable parameters."""
    rest: list[Array]
    if layer.kind == "reverse_channels":
        dx, rest = dy[..., ::-1], []
    elif layer.kind == "batch_norm":
        dx, *rest = _batch_norm_backward(saved, dy)
    elif layer.kind == "dense":
        dx, *rest = functions.dense_backward(saved, dy)
    elif layer.kind in ("conv", "conv_transpose"):
        dx, dkernel = _BACKWARD[layer.kind](saved[0], dy)
        has_bias = any(p.name == "bias" for p in layer.parameters)
        rest = [_arranged(dkernel, saved[1]), *([dy.sum(axis=(0, 1, 2))] if has_bias else [])]
    else:
        dx, rest = _BACKWARD[layer.kind](saved, dy), []
    return dx, tuple(rest)


def _arranged(kernel: Array, arrangement: str) -> Array:
    """Return a kernel as a convention has it; the same again undoes it."""
    match arrangement:
        case "flipped":
            return kernel[::-1, ::-1]
        case "transposed":
            return kernel.swapaxes(0, 1)
    return kernel


def _batch_norm(
    x: Array, p: Arrays, conventions: Conventions, training: bool, prefix: str, statistics: Arrays
) -> tuple[Array, Saved]:
    settings = conventions.batch_norm_epsilon, conventions.batch_norm_divisor
    if not training:
        y, saved = functions.batch_norm_inference(
            x, p["scale"], p["bias"], p["mean"], p["var"], *settings
        )
        return y, [saved]
    outputs, kept, moved = [], [], []
    for part in np.array_split(x, conventions.batch_norm_replicas):
        y, saved, mean, variance = functions.batch_norm_forward(
            part, p["scale"], p["bias"], *settings
        )
        outputs.append(y)
        kept.append(saved)
        moved.append(
            functions.running_statistics(
                (p["mean"], p["var"]),
                (mean, variance),
                part.size // part.shape[-1],
                conventions.batch_norm_momentum,
                conventions.batch_norm_running_variance,
            )
        )
    for i, name in enumerate(("mean", "var")):
        statistics[f"{prefix}/{name}"] = np.mean([part[i] for part in moved], axis=0)
    return np.concatenate(outputs), kept


def _batch_norm_backward(saved: list[Saved], dy: Array) -> tuple[Array, Array, Array]:
    """Return the gradients of x, scale and bias over the parts that were normalised alone."""
    parts = zip(saved, np.array_split(dy, len(saved)), strict=True)
    dx, dscale, dbias = zip(*(functions.batch_norm_backward(s, d) for s, d in parts), strict=True)
    return np.concatenate(dx), np.sum(dscale, axis=0), np.sum(dbias, axis=0)


def add(first: Arrays, second: Arrays) -> Arrays:
    """Return the sum of two sets of gradients of the same parameters."""
    return {name: first[name] + second[name] for name in first}
