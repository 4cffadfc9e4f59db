"""A further device of PyTorch: a process that does with its rows what the worker does.

Its stdin, from `pytorch_processes`, is a pipe that closes when the worker is gone, however it died:
then it ends too, in whatever it is doing.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from queue import SimpleQueue
from typing import IO, Any

from safetensors.numpy import load

from benchmarks.plan.configuration import Request
from benchmarks.worker import pytorch_workload
from benchmarks.worker.feed import feed_of_one, make_feed
from benchmarks.worker.pytorch_processes import ADDRESS, Arrays, join_group
from shared.spec import SystemSpec

Message = tuple[str, dict[str, Any], Arrays]
"""What to do, and with which values and arrays."""


def follow(number: int, port: int, request: Request) -> None:
    """Do what the worker announces until it is gone."""
    # The only way out is the end of the pipe: `_listen`.
    messages: SimpleQueue[Message] = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, messages), daemon=True).start()
    import torch.distributed as dist

    store = dist.TCPStore(ADDRESS, port, request.configuration.devices, is_master=False)
    join_group(request, store, number)
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
