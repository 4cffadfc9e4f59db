"""What one training step costs, by the spec: operations, bytes, exchanges between devices.

docs/benchmarks.md#how-to-read-it says what is counted, and what is left out: two floating-point
operations per multiply-add; the bytes of each pass through a layer with a kernel, and of Adam.
"""

import math
from typing import Any, NamedTuple

from benchmarks.plan.configuration import CHOSEN
from shared.spec import NETWORKS, NetworkName, SystemSpec
from shared.spec.compute import PRECISIONS

FLOAT32_BYTES = 4
ACTIVATION_BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2}
ADAM_ACCESSES = 7  # reads of parameter, gradient, m, v; writes of parameter, m, v


class LayerCost(NamedTuple):
    """A layer that has a kernel: its multiply-adds and elements for one image and one pass."""

    passes: int  # of one training step
    multiply_adds: int
    activations: int  # input and output
    kernel: int


def _passes(spec: SystemSpec, network: NetworkName) -> tuple[int, int, int, int]:
    """Return a step's passes forward, back by the inputs, back by the weights, and its updates.

    D learns from a real and a fake batch in each of its updates, and G's update passes through D
    once more. G makes a batch for each of D's updates and its own one, unless that is D's last.
    """
    k, own_batch = spec.discriminator_steps, spec.generator_batch != "same_images"
    return (k + own_batch, 1, 1, 1) if network == "generator" else (2 * k + 1, 2 * k + 1, 2 * k, k)


def layer_costs(spec: SystemSpec, network: NetworkName) -> list[LayerCost]:
    """Return the layers of a network that have a kernel, in layer order.

    A conv applies its whole kernel once per output pixel, a conv-transpose once per input pixel.
    Nobody needs the gradient by latents, real images or detached fake ones: where its weights
    learn, the first layer has none by its inputs.
    """
    forward, by_inputs, by_weights, _ = _passes(spec, network)
    is_generator = network == "generator"
    input_shape: tuple[int, ...] = (1, 1, spec.latent_dim) if is_generator else spec.image_shape
    costs: list[LayerCost] = []
    for layer in spec.layers(network):
        if layer.kind in ("conv", "conv_transpose", "dense"):
            pixels = layer.output_shape if layer.kind == "conv" else input_shape
            positions = 1 if layer.kind == "dense" else math.prod(pixels[:2])
            kernel = math.prod(layer.parameters[0].shape)
            elements = math.prod(input_shape) + math.prod(layer.output_shape)
            passes = forward + by_inputs + (by_weights if costs else 0)
            costs.append(LayerCost(passes, positions * kernel, elements, kernel))
        input_shape = layer.output_shape
    return costs


def _sum_of_layers(spec: SystemSpec, quantity: str) -> int:
    """Return a field of `LayerCost`, times the passes, summed over both networks."""
    layers = [layer for network in NETWORKS for layer in layer_costs(spec, network)]
    return sum(layer.passes * getattr(layer, quantity) for layer in layers)


def flops_per_image(spec: SystemSpec) -> int:
    """Return the floating-point operations of one training step per image of one batch.

    For dcgan64 at width 64 this is 2,274,623,488, the number of torch's FlopCounterMode.
    """
    return 2 * _sum_of_layers(spec, "multiply_adds")


def fixed_bytes(spec: SystemSpec) -> int:
    """Return the bytes that do not depend on the batch: kernels of every pass, and Adam."""
    updated = sum(exchanges_of_step(spec).reduced_gradients)
    return FLOAT32_BYTES * (_sum_of_layers(spec, "kernel") + ADAM_ACCESSES * updated)


def bytes_per_image(spec: SystemSpec, precision: str) -> int:
    """Return what each image of a batch adds: layer inputs, outputs and their gradients."""
    return ACTIVATION_BYTES[precision] * _sum_of_layers(spec, "activations")


def workload(spec: SystemSpec, dtype: str) -> dict[str, Any]:
    """Return what one step is, whatever its batch, with its operations and bytes."""
    return {
        "system": spec.name,
        **{name: getattr(spec, name) for name in CHOSEN},
        "dtype": dtype,
        "flops_per_image": flops_per_image(spec),
        "flops_source": "analytic",
        "bytes_per_step": {
            precision: {"fixed": fixed_bytes(spec), "per_image": bytes_per_image(spec, precision)}
            for precision in PRECISIONS.values()
        },
    }


class Exchanges(NamedTuple):
    """How many float32 numbers each exchange of a step has, on each device.

    `gathered`: mean and variance of each channel of a batch norm layer, for every forward pass.
    `reduced_statistics`: their gradients, for every backward pass. `reduced_gradients`: those of a
    network's weights, for every update. PyTorch alone gathers; the others reduce all of them.
    """

    gathered: list[int]
    reduced_statistics: list[int]
    reduced_gradients: list[int]


def exchanges_of_step(spec: SystemSpec) -> Exchanges:
    """Return the exchanges of one step with global batch statistics."""
    found = Exchanges([], [], [])
    for network in NETWORKS:
        forward, backward, _, updates = _passes(spec, network)
        means = [p for p in spec.parameters(network).values() if p.name == "mean"]
        statistics = [2 * math.prod(mean.shape) for mean in means]  # and variances
        found.gathered.extend(statistics * forward)
        found.reduced_statistics.extend(statistics * backward)
        found.reduced_gradients.extend([spec.parameter_count(network)] * updates)
    return found
