"""PyTorch's own functions, as `main.load` lists them.

On several devices there is a process for each: the worker leads, the others follow. The worker
sends each follower, through a pipe, what it is about to do itself. When it is gone, however it
died, a follower ends too, in whatever it is doing.
"""

import dataclasses
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from benchmarks.plan import host
from benchmarks.plan.configuration import Request
from benchmarks.plan.costs import exchanges_of_step
from benchmarks.worker.workloads import Batch, Workload, create_workload
from pytorch_impl import parallel
from pytorch_impl.state import TrainState, select_device, set_tf32
from shared.interface import Array
from shared.spec import SystemSpec

ADDRESS = "127.0.0.1"
COLLECTIVE = ("step", "import_state", "communicate")
"""What of a workload the followers do as well."""

_pipes: list[Connection] = []  # to the followers of this process; a follower has none


def configure(request: Request) -> None:
    """Start a process for each further device, and apply the settings."""
    devices, store = request.configuration.devices, None
    parallel.prepare_devices(request.plan.device, devices)
    if devices > 1:
        # Port 0: one that is free. Nobody can take it between the choice and the use.
        store = dist.TCPStore(ADDRESS, 0, devices, is_master=True, wait_for_workers=False)
        threads = str(request.configuration.threads_of_process)
        os.environ |= dict.fromkeys(host.THREAD_VARIABLES, threads)
        context = multiprocessing.get_context("spawn")
        for number in range(1, devices):
            theirs, own = context.Pipe(duplex=False)
            place = (theirs, request, number, store.port)
            context.Process(target=follow, args=place, daemon=True).start()
            theirs.close()
            _pipes.append(own)
    _take_part(request, store, 0)


def _take_part(request: Request, store: dist.TCPStore | None, number: int) -> None:
    """Join the group of processes, where there is one, and apply the settings."""
    on_gpu, asked = request.plan.device == "gpu", request.configuration
    if store is not None:
        backend = "nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=number, world_size=asked.devices)
    torch.set_num_threads(asked.threads_of_process)
    if on_gpu:
        set_tf32(asked.precision == "tf32")
    select_device(request.plan.device)


def _announce(name: str, *arguments: Any) -> None:
    """Send the followers, if there are any, what this process is about to do."""
    for pipe in _pipes:
        pipe.send((name, arguments))


def follow(pipe: Connection, request: Request, number: int, port: int) -> None:
    """Do, in the process of a further device, what the worker announces until it is gone."""
    threading.Thread(target=_end_with_worker, daemon=True).start()
    store = dist.TCPStore(ADDRESS, port, request.configuration.devices, is_master=False)
    _take_part(request, store, number)
    workload = None
    while True:
        name, arguments = pipe.recv()
        if name == "create":
            workload = None  # its memory first
            workload = create(*arguments)
        else:
            getattr(workload, name)(*arguments)


def _end_with_worker() -> None:
    multiprocessing.parent_process().join()  # type: ignore[union-attr]
    os._exit(0)


def create(spec: SystemSpec, seed: int, request: Request, batch: Batch | None = None) -> Workload:
    """Return a workload; with several devices the other processes follow this one."""
    _announce("create", spec, seed, request, batch)
    workload = create_workload(sys.modules[__name__], spec, seed, request, batch)
    if request.configuration.devices == 1:
        return workload
    parts: dict[str, Any] = {name: partial(_lead, workload, name) for name in COLLECTIVE}
    return dataclasses.replace(workload, **parts)


def _lead(workload: Workload, name: str, *arguments: Any) -> Any:
    """Do something with a workload, as the followers do with theirs."""
    _announce(name, *arguments)
    return getattr(workload, name)(*arguments)


def communication(request: Request, spec: SystemSpec, state: TrainState) -> Callable[[], None]:
    """Return what makes the exchanges of a step alone, one after another, and waits for them."""
    sizes, zeros = exchanges_of_step(spec), partial(torch.zeros, device=state.device)
    gathered = [zeros(size) for size in sizes.gathered]
    reduced = [zeros(size) for size in sizes.reduced_statistics + sizes.reduced_gradients]

    def communicate() -> None:
        for own in gathered:
            dist.all_gather([torch.empty_like(own) for _ in range(dist.get_world_size())], own)
        for own in reduced:
            dist.all_reduce(own)
        wait(request)

    return communicate


def read_back(state: TrainState) -> dict[str, Any]:
    """Return platform, device, dtype, threads, layout and flags that are in use."""
    processes = dist.get_world_size() if dist.is_initialized() else 1
    weights = list(state.generator.parameters())
    weight = next(p for p in weights if p.dim() > 1)
    kernels = [p for p in weights if p.dim() == 4]
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
    if request.plan.device == "gpu":
        torch.cuda.synchronize()


def forget_peak(request: Request) -> None:
    """Count the GPU's peak of memory anew."""
    if request.plan.device == "gpu":
        torch.cuda.reset_peak_memory_stats()


def peak_device_bytes() -> int:
    """Return the most bytes that tensors ever held on the GPU."""
    return torch.cuda.max_memory_allocated()


def to_device(request: Request, array: Array, dtype: str = "float32") -> torch.Tensor:
    """Return an array on the device."""
    return torch.from_numpy(array).to(select_device(request.plan.device), getattr(torch, dtype))


def _convolve(images: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    x, w = images.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1)
    return F.conv2d(x, w, stride=2, padding=1).permute(0, 2, 3, 1).cpu()


OPERATIONS = {"matmul": lambda a, b: torch.matmul(a, b).cpu(), "convolution": _convolve}


def addition(request: Request, length: int) -> Callable[[], Any]:
    """Return what adds a float32 array to another one, in place."""
    total, summand = (to_device(request, np.ones(length, np.float32)) for _ in range(2))
    return lambda: total.add_(summand)
