"""Several devices: DistributedDataParallel averages the gradients (Li et al. 2020).

Every device has a process of its own (`pytorch_impl.cluster`), holds the whole training state and
takes its rows of every batch.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from shared.spec import NETWORKS

if TYPE_CHECKING:
    from pytorch_impl.state import TrainState

__all__ = ["average", "average_statistics", "prepare_devices", "replicate"]


def prepare_devices(device: str, devices: int) -> None:
    """Raise ValueError if more GPUs are asked for than there are; CPU devices are processes."""
    available = torch.cuda.device_count()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
    wants_gpu = device == "gpu" or (device == "auto" and available > 0)
    if wants_gpu and devices > 1 and local > available:
        raise ValueError(
            f"--devices {devices} was asked for, but PyTorch sees {available} GPU"
            f"{'' if available == 1 else 's'}; use --devices {max(available, 1)} or --device cpu"
        )


def replicate(state: TrainState) -> None:
    """Let the backward pass of both networks average the gradients of all devices."""
    with warnings.catch_warnings():
        # From 2.13 on it has another name, which earlier versions do not know.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        for name in NETWORKS:
            state.replicated[name] = DistributedDataParallel(
                state.network(name), broadcast_buffers=False, gradient_as_bucket_view=True
            )


def average(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return scalars averaged over all devices."""
    stacked = torch.stack(list(values.values()))
    dist.all_reduce(stacked)
    return dict(zip(values, stacked / dist.get_world_size(), strict=True))


def average_statistics(state: TrainState) -> None:
    """Give every device the mean of all devices' running statistics.

    Where each normalises by its own part of a batch they differ. An update is linear in them, so
    it does not matter how often, or when, they are averaged.
    """
    if state.devices == 1 or state.batch_norm == "global":
        return
    for name in NETWORKS:
        for buffer in state.network(name).buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= state.devices
