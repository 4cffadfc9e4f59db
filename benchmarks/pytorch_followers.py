"""PyTorch on several devices: a process for each. The worker leads, the others follow.

A follower reads from its stdin what the worker is about to do, and does the same with its own rows
of the same batches. Its stdin is a pipe that closes when the worker is gone, however it died: then
the follower ends too, in whatever it is doing.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import IO, Any

from benchmarks.feed import feed_of_one, make_feed
from benchmarks.request import Request

ADDRESS = "127.0.0.1"
THREAD_VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")

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
        command = [sys.executable, "-m", "benchmarks.pytorch_followers", *place]
        _followers.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE))
    _join_group(request, store, 0)


def tell(name: str, *arguments: Any) -> None:
    """Let the followers, if there are any, do what this process is about to do."""
    for follower in _followers:
        assert follower.stdin is not None
        pickle.dump((name, arguments), follower.stdin)
        follower.stdin.flush()


def together(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a workload, by its name there, that the followers make as well."""

    def call(*arguments: Any) -> Any:
        tell(name, *arguments)
        return function(*arguments)

    return call if _followers else function


def follow(number: int, port: int, request: Request) -> None:
    """Do what the worker says until it is gone."""
    # The only way out is the end of the pipe: `_listen`.
    messages: SimpleQueue[tuple[str, tuple[Any, ...]]] = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, messages), daemon=True).start()
    import torch.distributed as dist

    from benchmarks import pytorch_workload

    store = dist.TCPStore(ADDRESS, port, request.configuration.devices, is_master=False)
    _join_group(request, store, number)
    pytorch_workload.apply_settings(request)
    workload = None
    while True:
        name, arguments = messages.get()
        if name == "create":
            workload = None  # its memory first
            spec, seed, only = arguments
            feed = make_feed(request) if only is None else feed_of_one(*only)
            workload = pytorch_workload.create(spec, seed, request, feed)
        else:
            getattr(workload, name)(*arguments)


def _join_group(request: Request, store: Any, number: int) -> None:
    import torch.distributed as dist

    backend = "nccl" if request.device == "gpu" else "gloo"
    devices = request.configuration.devices
    dist.init_process_group(backend, store=store, rank=number, world_size=devices)


def _listen(pipe: IO[bytes], messages: SimpleQueue[tuple[str, tuple[Any, ...]]]) -> None:
    try:
        while True:
            messages.put(pickle.load(pipe))
    finally:  # its end; or half a message, of a worker that was killed
        os._exit(0)


if __name__ == "__main__":
    follow(int(sys.argv[1]), int(sys.argv[2]), Request.from_json(sys.argv[3]))
