"""PyTorch's layers follow the spec; here are two that are computed in another, faster way."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["conv_transpose_of_one_pixel", "normalize"]


def conv_transpose_of_one_pixel(layer: nn.ConvTranspose2d, latents: Tensor) -> Tensor:
    """Return `layer` of latents [batch, features] as images of one pixel, in one matrix product.

    For a layer without padding: the output, NCHW, has the kernel's size. oneDNN runs the weight
    gradient of such a transposed convolution at a twentieth of the speed.
    """
    kernel = layer.weight.permute(0, 2, 3, 1)  # channels_last: nothing is moved
    features, height, width, channels = kernel.shape
    x = latents @ kernel.reshape(features, -1)
    return x.view(-1, height, width, channels).permute(0, 3, 1, 2)


def normalize(layer: nn.Module, x: Tensor, batches: int) -> Tensor:
    """Return BN of `batches` batches that lie one after another in x, each by its own statistics.

    The running statistics move once for each of them, in their order.
    """
    if batches == 1:
        return layer(x)
    return torch.cat([layer(batch) for batch in x.chunk(batches)])
