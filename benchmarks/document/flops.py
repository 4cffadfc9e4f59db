"""The arithmetic of one training step, counted from the layers of the spec.

Two floating-point operations per multiply-add of every conv, conv-transpose and dense layer, the
taps that fall on padding included. Every framework is rated by this one count, whatever it
executes; batch normalisation, activations, losses and Adam are left out, as they are everywhere.
"""

from __future__ import annotations

import math

from shared.spec import NETWORKS, NetworkName, SystemSpec


def multiply_adds(spec: SystemSpec, network: NetworkName) -> list[int]:
    """Return the multiply-adds per image of each layer that has a kernel, in layer order.

    A conv applies its whole kernel once per output pixel, a conv-transpose once per input pixel.
    The backward pass by the weights costs the same again, and so does the one by the input.
    """
    counts = []
    input_shape: tuple[int, ...]
    input_shape = spec.image_shape if network == "discriminator" else (1, 1, spec.latent_dim)
    for layer in spec.layers(network):
        if layer.kind in ("conv", "conv_transpose", "dense"):
            places = layer.output_shape if layer.kind == "conv" else input_shape
            positions = 1 if layer.kind == "dense" else math.prod(places[:2])
            counts.append(positions * math.prod(layer.parameters[0].shape))
        input_shape = layer.output_shape
    return counts


def passes(spec: SystemSpec, network: NetworkName) -> list[int]:
    """Return how often one training step passes each layer that has a kernel, in layer order.

    The smallest plan of a step with k discriminator updates, in passes over a network:

    - G: forward, for each batch of images made                                k x G, or k + 1
    - G: by the weights, by the inputs                                         2 x G
    - D on real images: forward, by the weights, by the inputs                 3k x D
    - D on detached fake images: the same                                      3k x D
    - D on fake images in G's update: forward, by the inputs only              2 x D

    less what nobody needs: the gradient by the latents (G's first layer), and that by the real
    and by the detached fake images (D's first layer, twice).
    """
    k = spec.discriminator_steps
    if network == "generator":
        every, not_needed = k + (spec.generator_batch != "same_images") + 2, 1
    else:
        every, not_needed = 6 * k + 2, 2 * k
    behind_the_first = len(multiply_adds(spec, network)) - 1
    return [every - not_needed, *[every] * behind_the_first]


def flops_per_image(spec: SystemSpec) -> int:
    """Return the floating-point operations of one training step per image of one batch.

    Those of every pass of `passes`. For dcgan64 at width 64 this is 2,274,623,488, the number of
    torch's FlopCounterMode.
    """
    return 2 * sum(
        count * operations
        for network in NETWORKS
        for count, operations in zip(
            passes(spec, network), multiply_adds(spec, network), strict=True
        )
    )
