"""A whole network forward and backward, by walking the layers of the spec."""

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from shared.interface import Array, Arrays
from shared.reference import layers as functions
from shared.reference.layers import Backward, Forward
from shared.spec import Conventions, Layer, NetworkName, SystemSpec


@dataclass(frozen=True)
class Pass:
    """One forward pass: `activations` by layer name, `statistics` are BN's moved running ones.

    `saved` has the backward pass of each layer.
    """

    output: Array
    activations: Arrays
    statistics: Arrays
    saved: tuple[tuple[Layer, Backward], ...]


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
    saved: list[tuple[Layer, Backward]] = []
    for layer in _layers(spec, network, conventions):
        prefix = f"{network}/{layer.name}"
        p: Arrays = {q.name: arrays[f"{prefix}/{q.name}"] for q in layer.parameters}
        if layer.kind == "batch_norm":
            x, backward_layer, moved = _batch_norm(x, p, layer, conventions, training)
            statistics |= {f"{prefix}/{name}": array for name, array in moved.items()}
        else:
            x, backward_layer = _forward_layer(layer, x, p, conventions)
        activations[layer.name] = x
        saved.append((layer, backward_layer))
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
    for layer, backward_layer in reversed(run.saved):
        dy, found = backward_layer(dy)
        for name in (p.name for p in layer.parameters if p.trainable):
            gradients[f"{network}/{layer.name}/{name}"] = found[name]
    return dy, gradients


def _forward_layer(layer: Layer, x: Array, p: Arrays, conventions: Conventions) -> Forward:
    match layer.kind:
        case "conv" | "conv_transpose":
            is_conv = layer.kind == "conv"
            run = functions.conv_forward if is_conv else functions.conv_transpose_forward
            arrangement = conventions.conv_kernel if is_conv else conventions.conv_transpose_kernel
            kernel = _arranged(p["kernel"], arrangement)
            alignment = conventions.padding_alignment
            y, without_bias = run(x, kernel, layer.stride, layer.padding, alignment)

            def backward(dy: Array) -> tuple[Array, Arrays]:
                dx, found = without_bias(dy)
                dkernel = _arranged(found["kernel"], arrangement)
                return dx, {"kernel": dkernel, "bias": dy.sum(axis=(0, 1, 2))}

            return y + p.get("bias", 0.0), backward
        case "dense":
            return functions.dense_forward(x, p["kernel"], p.get("bias", 0.0))
        case "relu" | "tanh" | "sigmoid":
            return functions.ACTIVATIONS[layer.kind](x)
        case "reverse_channels":
            return x[..., ::-1], lambda dy: (dy[..., ::-1], {})
        case "leaky_relu":
            slope = conventions.or_own("leaky_relu_slope", layer.slope)
            return functions.leaky_relu_forward(x, slope, conventions.leaky_relu_gradient_at_zero)
        case "flatten":
            return functions.flatten_forward(x, conventions.flatten_order)
        case "reshape":
            return functions.reshape_forward(x, layer.output_shape, conventions.flatten_order)
        case "upsample_nearest" | "upsample_bilinear" | "average_pool":
            rows, columns = (_resampling_matrix(layer, n) for n in x.shape[1:3])
            return functions.separable_forward(x, rows, columns)
        case "max_pool":
            return functions.max_pool_forward(x, layer.size, layer.stride, layer.padding)
        case "global_average_pool":
            return functions.global_average_pool_forward(x)
        case "zero_pad":
            y = functions.framed(x, layer.padding)
            return y, lambda dy: (functions.unframed(dy, layer.padding), {})
        case "dropout":  # as in inference: its draws are every framework's own
            return x, lambda dy: (dy, {})
    raise ValueError(f"unknown kind of layer {layer.kind!r}")


def _resampling_matrix(layer: Layer, size: int) -> Array:
    """Return what resamples an axis of `size` pixels."""
    match layer.kind:
        case "average_pool":
            return functions.averaging_matrix(size, layer.size, layer.stride)
        case "upsample_nearest":
            return functions.nearest_matrix(size, layer.size)
    return functions.bilinear_matrix(size, layer.size, layer.aligned_corners)


def _arranged(kernel: Array, arrangement: str) -> Array:
    """Return a kernel as a convention has it; a second time it undoes itself."""
    match arrangement:
        case "flipped":
            return kernel[::-1, ::-1]
        case "transposed":
            return kernel.swapaxes(0, 1)
    return kernel


def _batch_norm(
    x: Array, p: Arrays, layer: Layer, conventions: Conventions, training: bool
) -> tuple[Array, Backward, Arrays]:
    """Return the output, its backward pass, and the statistics that have moved."""
    scale, bias = p.get("scale", 1.0), p.get("bias", 0.0)
    epsilon = conventions.or_own("batch_norm_epsilon", layer.epsilon)
    momentum = conventions.or_own("batch_norm_momentum", layer.momentum)
    settings = epsilon, conventions.batch_norm_divisor
    running, estimator = (p["mean"], p["var"]), conventions.batch_norm_running_variance
    if not training:
        return *functions.batch_norm_forward(x, scale, bias, *settings, running)[:2], {}
    outputs, backwards, moved = [], [], []
    for part in np.array_split(x, conventions.batch_norm_replicas):
        y, of_part, *own = functions.batch_norm_forward(part, scale, bias, *settings)
        outputs.append(y)
        backwards.append(of_part)
        count = part.size // part.shape[-1]
        moved.append(functions.running_statistics(running, own, count, momentum, estimator))
    mean, variance = (np.mean(parts, axis=0) for parts in zip(*moved, strict=True))

    def backward(dy: Array) -> tuple[Array, Arrays]:
        parts = zip(backwards, np.array_split(dy, len(backwards)), strict=True)
        dx, found = zip(*(of_part(part) for of_part, part in parts), strict=True)
        return np.concatenate(dx), functools.reduce(add, found)

    return np.concatenate(outputs), backward, {"mean": mean, "var": variance}


def add(first: Arrays, second: Arrays) -> Arrays:
    """Return the sum of two sets of gradients of the same parameters."""
    return {name: first[name] + second[name] for name in first}
