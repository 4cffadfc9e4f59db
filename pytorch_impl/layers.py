"""PyTorch's layers follow the spec; these are computed faster, or on several devices."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["GlobalBatchNorm", "conv_transpose_of_one_pixel", "normalize", "with_global_batch_norm"]


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


def with_global_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network with every BN layer normalising by the batch of all devices together."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for name, layer in list(network.named_children()):
        if isinstance(layer, _BatchNorm):
            momentum = float(layer.momentum or 0.0)
            setattr(network, name, GlobalBatchNorm(layer.num_features, layer.eps, momentum))
    return network


class GlobalBatchNorm(nn.Module):
    """Batch normalisation by the statistics of all devices' parts; nn.SyncBatchNorm is for GPUs.

    Every device has as many images as the others. One exchange forward, one backward.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int, eps: float, momentum: float) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = (nn.Parameter(torch.empty(features)) for _ in range(2))
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, torch.empty(features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [batch, features, ...] by the global batch, or by the running statistics."""
        if not self.training:
            statistics = (self.running_mean, self.running_var)
            return F.batch_norm(x, *statistics, self.weight, self.bias, eps=self.eps)
        y, mean, variance, count = _Normalize.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return y


class _Normalize(torch.autograd.Function):
    """x, scale, bias, epsilon → normalised x, mean, biased variance and count of all devices."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, bias: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        values = x.to(scale.dtype)
        # The statistics that F.batch_norm takes; var_mean is 40 times slower on channels_last.
        own = torch.stack(torch.batch_norm_update_stats(values, None, None, 0.0))
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        means, variances = torch.stack(parts).unbind(1)
        # Parts of one size: Chan et al. 1979, "Updating formulae and a pairwise algorithm".
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        y = F.batch_norm(values, mean, variance, scale, bias, eps=epsilon)
        ctx.save_for_backward(values, scale, mean, variance)
        ctx.epsilon = epsilon
        ctx.mark_non_differentiable(mean, variance)
        count = values.numel() // len(mean) * dist.get_world_size()
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        x, scale, mean, variance = ctx.saved_tensors
        # As if the statistics were constants; what comes through them is a line in x.
        constants = (mean, variance, None, None, False, ctx.epsilon, [True, True, True])
        dx, dscale, dbias = torch.ops.aten.native_batch_norm_backward(
            dy.to(scale.dtype), x, scale, *constants
        )
        total = torch.stack([dscale, dbias])
        dist.all_reduce(total)
        along_variance, along_mean = total / (dy.numel() // len(scale) * dist.get_world_size())
        inverse = torch.rsqrt(variance + ctx.epsilon)
        slope = -scale * inverse.square() * along_variance
        offset = -scale * inverse * along_mean - slope * mean
        dx.addcmul_(x, _channels(slope, x)).add_(_channels(offset, x))
        return dx.to(dy.dtype), dscale, dbias, None


def _channels(values: Tensor, like: Tensor) -> Tensor:
    """Return [features] in the shape that broadcasts over [batch, features, ...]."""
    return values.view(1, -1, *(1,) * (like.ndim - 2))
