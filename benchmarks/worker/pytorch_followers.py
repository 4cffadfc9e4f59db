"""PyTorch on several devices: a process for each. The worker leads, the others follow.

A follower reads from its stdin what the worker is about to do, and does the same with its own rows
of the same batches: a line of JSON with a name, its values and the size of the safetensors that
come after it. Its stdin is a pipe that closes when the worker is gone, however it died: then the
follower ends too, in whatever it is doing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import IO, Any

import numpy as np
from safetensors.numpy import load, save

from benchmarks.plan.request import Request
from benchmarks.worker.feed import Batch, feed_of_one, make_feed
from shared.spec import SystemSpec

ADDRESS = "127.0.0.1"
THREAD_VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Arrays = dict[str, np.ndarray]
Message = tuple[str, dict[str, Any], Arrays]
"""What to do, and with which values and arrays."""

_followers: list[subprocess.Popen[bytes]] = []  # of this process; a follower has none


def join(request: Request) -> None:
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
    _join_group(request, store, 0)


def tell_create(spec: SystemSpec, seed: int, only: Batch | None) -> None:
    """Let the followers create a workload, with one batch or with those of the request."""
    arrays = {} if only is None else dict(zip(("images", "latents"), only, strict=True))
    _tell("create", {"spec": spec.to_dict(), "seed": seed}, arrays)


def together(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a workload, by its name there, that the followers make as well.

    Its only argument, if it has one, is a dict of arrays.
    """

    def call(*arguments: Arrays) -> Any:
        _tell(name, {}, *arguments)
        return function(*arguments)

    return call if _followers else function


def follow(number: int, port: int, request: Request) -> None:
    """Do what the worker says until it is gone."""
    # The only way out is the end of the pipe: `_listen`.
    messages: SimpleQueue[Message] = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, messages), daemon=True).start()
    import torch.distributed as dist

    from benchmarks.worker import pytorch_workload

    store = dist.TCPStore(ADDRESS, port, request.configuration.devices, is_master=False)
    _join_group(request, store, number)
    pytorch_workload.apply_settings(request)
    workload = None
    while True:
        name, values, arrays = messages.get()
        if name == "create":
            workload = None  # its memory first
            spec = SystemSpec.from_dict(values["spec"])
            feed = feed_of_one(**arrays) if arrays else make_feed(request)
            workload = pytorch_workload.create(spec, values["seed"], request, feed)
        else:
            getattr(workload, name)(*([arrays] if arrays else []))


def _join_group(request: Request, store: Any, number: int) -> None:
    import torch.distributed as dist

    backend = "nccl" if request.device == "gpu" else "gloo"
    devices = request.configuration.devices
    dist.init_process_group(backend, store=store, rank=number, world_size=devices)


def _tell(name: str, values: dict[str, Any], arrays: Arrays | None = None) -> None:
    """Let the followers, if there are any, do what this process is about to do."""
    content = save(arrays) if arrays else b""
    header = json.dumps({"name": name, "values": values, "bytes": len(content)})
    for follower in _followers:
        assert follower.stdin is not None
        follower.stdin.write(header.encode() + b"\n" + content)
        follower.stdin.flush()


def _listen(pipe: IO[bytes], messages: SimpleQueue[Message]) -> None:
    try:
        while True:
            header = json.loads(pipe.readline())
            content = pipe.read(header["bytes"])
            messages.put((header["name"], header["values"], load(content) if content else {}))
    finally:  # its end; or half a message, of a worker that was killed
        os._exit(0)


if __name__ == "__main__":
    follow(int(sys.argv[1]), int(sys.argv[2]), Request.from_json(sys.argv[3]))
