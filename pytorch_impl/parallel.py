"""Several devices, a process on each: DistributedDataParallel (Li et al. 2020) of gradients."""

import os
import warnings
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shared.spec.compute import require_devices

from .layers import BatchNorm


def prepare_devices(device: str, devices: int) -> None:
    """Raise ValueError if more GPUs are asked for than there are; CPU devices are processes."""
    available = torch.cuda.device_count()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
    wants_gpu = device == "gpu" or (device == "auto" and available > 0)
    if wants_gpu and devices > 1 and local > available:
        require_devices("PyTorch", devices, available)


def check_processes(devices: int) -> None:
    """Raise ValueError unless this is one of as many processes as there are devices."""
    processes = dist.get_world_size() if dist.is_initialized() else 1
    if devices != processes:
        raise ValueError(
            f"{devices} devices need as many processes, but this run has {processes}; start it by "
            f"python -m pytorch_impl.train --devices {devices}, or by torchrun with as many in all"
        )


def replicate(network: nn.Module) -> nn.Module:
    """Return a network whose backward pass averages the gradients of all devices."""
    with warnings.catch_warnings():
        # From 2.13 on it has another name, which earlier versions do not know.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(
            network, broadcast_buffers=False, gradient_as_bucket_view=True
        )


def average(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return scalars averaged over all devices."""
    stacked = torch.stack(list(values.values()))
    dist.all_reduce(stacked)
    return dict(zip(values, stacked / dist.get_world_size(), strict=True))


def average_statistics(network: nn.Module) -> None:
    """Give every device the mean of all running statistics, in which each update is linear."""
    for buffer in network.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= dist.get_world_size()


class GlobalBatchNorm(BatchNorm):
    """Batch normalisation by the whole batch, in equal parts; nn.SyncBatchNorm is for GPUs."""

    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [batch, features, ...] by the global batch, or by the running statistics."""
        if not self.training:
            return super().forward(x)
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
