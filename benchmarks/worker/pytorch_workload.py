"""PyTorch's own functions, as `workloads.load` lists them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.plan import host
from benchmarks.plan.configuration import Request
from benchmarks.worker import pytorch_processes
from benchmarks.worker.exchanges import exchanges_of_step
from benchmarks.worker.feed import Feed
from benchmarks.worker.workloads import Operation, Workload, create_workload
from shared.interface import load_implementation
from shared.spec import SystemSpec


def configure(request: Request) -> None:
    """Import PyTorch, start a process for each further device, and apply the settings."""
    load_implementation("pytorch")
    from pytorch_impl import parallel

    parallel.prepare_devices(request.device, request.configuration.devices)
    pytorch_processes.start_followers(request)
    apply_settings(request)


def apply_settings(request: Request) -> None:
    """Set the threads of this process, and allow TF32 only where it is asked for."""
    import torch

    from pytorch_impl import train

    torch.set_num_threads(request.configuration.threads_of_process)
    if request.device == "gpu":
        precision = "tf32" if request.configuration.precision == "tf32" else "ieee"
        torch.backends.cuda.matmul.fp32_precision = precision
        torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
    train.select_device(request.device)


def create(spec: SystemSpec, seed: int, request: Request, feed: Feed) -> Workload:
    """Return a workload; with several devices the other processes follow this one."""
    pytorch_processes.announce_create(spec, seed, feed.only)
    workload = create_workload(spec, seed, request, feed)
    return pytorch_processes.led(
        dataclasses.replace(workload, peak_resident_bytes=peak_resident_bytes)
    )


def communication(request: Request, spec: SystemSpec, state: Any) -> Callable[[], None]:
    """Return what makes the exchanges of a step alone, one after another, and waits for them."""
    import torch
    import torch.distributed as dist

    sizes, place = exchanges_of_step(spec), _place(request)
    gathered = [torch.zeros(size, device=place) for size in sizes.gathered]
    reduced = [torch.zeros(size, device=place) for size in sizes.reduced]

    def communicate() -> None:
        for own in gathered:
            dist.all_gather([torch.empty_like(own) for _ in range(dist.get_world_size())], own)
        for own in reduced:
            dist.all_reduce(own)
        wait(request)

    return communicate


def _place(request: Request) -> str:
    return "cuda" if request.device == "gpu" else "cpu"


def peak_resident_bytes() -> int:
    """Return the most memory that each of the processes ever held, added up."""
    import torch
    import torch.distributed as dist

    own = host.peak_resident_bytes()
    if not dist.is_initialized():
        return own
    total = torch.tensor(own, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(total)
    return int(total)


def read_back(network: Any) -> dict[str, Any]:
    """Return platform, device, dtype, threads, layout and flags that are in use."""
    import torch
    import torch.distributed as dist

    processes = dist.get_world_size() if dist.is_initialized() else 1
    weight = next(p for p in network.parameters() if p.dim() > 1)
    kernels = [p for p in network.parameters() if p.dim() == 4]
    last = all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)
    flags = {
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "cuda.matmul.fp32_precision": torch.backends.cuda.matmul.fp32_precision,
        "cudnn.conv.fp32_precision": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
    }
    return {
        "platform": "gpu" if weight.is_cuda else "cpu",
        "device": torch.cuda.get_device_name() if weight.is_cuda else str(weight.device),
        "dtype": str(weight.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads() * processes,
        "layout": ("channels_last" if last else "channels_first") if kernels else "dense",
        "flags": {name: str(value) for name, value in flags.items()},
    }


def wait(request: Request) -> None:
    """Wait for every kernel on the GPU; on a CPU PyTorch has nothing to wait for."""
    import torch

    if request.device == "gpu":
        torch.cuda.synchronize()


def peak_device_bytes(request: Request) -> int | None:
    """Return the most bytes that tensors ever held on the GPU; None on a CPU."""
    import torch

    return torch.cuda.max_memory_allocated() if request.device == "gpu" else None


def operations(request: Request) -> dict[str, Operation]:
    """Return a matrix product and a convolution of NumPy arrays, done by PyTorch on the device."""
    import torch
    import torch.nn.functional as F

    place = _place(request)

    def convolution(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(images).to(place).permute(0, 3, 1, 2)
        w = torch.from_numpy(kernel).to(place).permute(3, 2, 0, 1)
        return F.conv2d(x, w, padding=1).permute(0, 2, 3, 1).cpu().numpy()

    def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return (torch.from_numpy(left).to(place) @ torch.from_numpy(right).to(place)).cpu().numpy()

    return {"matmul": product, "convolution": convolution}


def products(request: Request, size: int) -> Callable[[int], None]:
    """Return what makes n products of two size x size matrices and waits for them."""
    import torch

    place = _place(request)
    dtype = torch.bfloat16 if request.configuration.precision == "bfloat16" else torch.float32
    left = torch.full((size, size), 0.5, dtype=dtype, device=place)

    def run(count: int) -> None:
        for _ in range(count):
            left @ left
        wait(request)

    return run


def additions(request: Request, length: int) -> Callable[[int], None]:
    """Return what adds a float32 array to another one n times, in place, and waits."""
    import torch

    place = _place(request)
    total, summand = (torch.ones(length, device=place) for _ in range(2))

    def run(count: int) -> None:
        for _ in range(count):
            total.add_(summand)
        wait(request)

    return run
