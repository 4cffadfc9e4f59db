"""PyTorch on several devices: a process for each. The worker leads, the others follow.

The worker sends each follower what it is about to do itself: a line of JSON with a name, its
values and the size of the safetensors that come after it. `pytorch_followers` is the other end.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors.numpy import save

from benchmarks.plan.configuration import Request
from benchmarks.worker.feed import Batch
from benchmarks.worker.workloads import Workload
from shared.spec import SystemSpec

ADDRESS = "127.0.0.1"
THREAD_VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Arrays = dict[str, np.ndarray]

_followers: list[subprocess.Popen[bytes]] = []  # of this process; a follower has none


def start_followers(request: Request) -> None:
    """Start the other processes of a request and join them; one device needs no others."""
    devices = request.configuration.devices
    if devices == 1:
        return
    import torch.distributed as dist

    # Port 0: one that is free. Nobody can take it between the choice and the use.
    store = dist.TCPStore(ADDRESS, 0, devices, is_master=True, wait_for_workers=False)
    threads = str(request.configuration.threads_of_process)
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, threads)
    for number in range(1, devices):
        place = [str(number), str(store.port), request.to_json()]
        command = [sys.executable, "-m", "benchmarks.worker.pytorch_followers", *place]
        _followers.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE))
    join_group(request, store, 0)


def join_group(request: Request, store: Any, number: int) -> None:
    """Join the process group of a request as the process of this number."""
    import torch.distributed as dist

    backend = "nccl" if request.device == "gpu" else "gloo"
    devices = request.configuration.devices
    dist.init_process_group(backend, store=store, rank=number, world_size=devices)


def announce_create(spec: SystemSpec, seed: int, only: Batch | None) -> None:
    """Let the followers create a workload, with one batch or with those of the request."""
    arrays = {} if only is None else dict(zip(("images", "latents"), only, strict=True))
    _announce("create", {"spec": spec.to_dict(), "seed": seed}, arrays)


def led(workload: Workload) -> Workload:
    """Return a workload whose collective functions the followers call as well."""

    def announced(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Arrays) -> Any:
            _announce(name, {}, *arguments)
            return function(*arguments)

        return call

    if not _followers:
        return workload
    names = ("step", "import_state", "communicate", "peak_resident_bytes")
    functions: dict[str, Any] = {name: announced(name, getattr(workload, name)) for name in names}
    return dataclasses.replace(workload, **functions)


def _announce(name: str, values: dict[str, Any], arrays: Arrays | None = None) -> None:
    """Send the followers, if there are any, what this process is about to do."""
    content = save(arrays) if arrays else b""
    header = json.dumps({"name": name, "values": values, "bytes": len(content)})
    for follower in _followers:
        assert follower.stdin is not None
        follower.stdin.write(header.encode() + b"\n" + content)
        follower.stdin.flush()
