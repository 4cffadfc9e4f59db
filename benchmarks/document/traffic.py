"""The bytes that one training step moves between memory and processor, counted from the spec.

The plan is the smallest one that keeps nothing in a cache:

- A pass through a conv, conv-transpose or dense layer reads its two operands once and writes its
  result once. Forward: layer input and kernel, output. By the weights: input and the gradient of
  the output, the gradient of the kernel. By the inputs: the gradient of the output and the kernel,
  the gradient of the input. So each of the three moves input, output and kernel once. Which passes
  a step makes is `benchmarks.document.flops.passes`, the plan of the operations.
- Batch normalisation, activations, biases and losses ride along in these passes: nothing. So does
  the sum of the gradients of a discriminator's real and fake batch.
- Adam reads parameter, gradient and both moments, and writes parameter and both moments.

An element of images, latents, activations and their gradients has 2 bytes in bfloat16, else 4.
Weights, their gradients and the moments are float32 in storage, so a pass reads and writes 4 bytes
of each in bfloat16 too: the rounding to bfloat16 rides along. (A copy of the weights in bfloat16
would save a little where a step reads a kernel more than three times; weights are a small part.)

Nothing stays in a cache from one pass to the next. A small batch on a CPU whose activations fit in
its cache can beat this count, and a step that fuses convolutions could too.
"""

from __future__ import annotations

import math

from benchmarks.document.flops import passes
from shared.spec import NETWORKS, NetworkName, SystemSpec

FLOAT32_BYTES = 4
ACTIVATION_BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2}
ADAM_ACCESSES = 7  # reads of parameter, gradient, m, v; writes of parameter, m, v


def bytes_per_step(spec: SystemSpec, batch_size: int, precision: str) -> int:
    """Return the bytes that one training step moves at least, under the plan above.

    `precision` is float32, tf32 or bfloat16.
    """
    return fixed_bytes(spec) + batch_size * bytes_per_image(spec, precision)


def fixed_bytes(spec: SystemSpec) -> int:
    """Return the part that does not depend on the batch: kernels of every pass, and Adam."""
    kernels = sum(
        count * kernel
        for network in NETWORKS
        for count, (_, kernel) in zip(passes(spec, network), _sizes(spec, network), strict=True)
    )
    updates = {"generator": 1, "discriminator": spec.discriminator_steps}
    updated = sum(updates[network] * spec.parameter_count(network) for network in NETWORKS)
    return FLOAT32_BYTES * (kernels + ADAM_ACCESSES * updated)


def bytes_per_image(spec: SystemSpec, precision: str) -> int:
    """Return what each image of a batch adds: layer inputs, outputs and their gradients."""
    return ACTIVATION_BYTES[precision] * sum(
        count * activations
        for network in NETWORKS
        for count, (activations, _) in zip(
            passes(spec, network), _sizes(spec, network), strict=True
        )
    )


def _sizes(spec: SystemSpec, network: NetworkName) -> list[tuple[int, int]]:
    """Return the elements of input and output per image, and those of the kernel, of each layer.

    Only of layers that have a kernel, in layer order.
    """
    sizes = []
    size = spec.latent_dim if network == "generator" else math.prod(spec.image_shape)
    for layer in spec.layers(network):
        output_size = math.prod(layer.output_shape)
        if layer.kind in ("conv", "conv_transpose", "dense"):
            sizes.append((size + output_size, math.prod(layer.parameters[0].shape)))
        size = output_size
    return sizes
