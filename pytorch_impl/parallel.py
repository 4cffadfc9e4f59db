"""Several devices: one process for each, joined by torch.distributed (nccl on GPUs, gloo on CPUs).

Every process holds the whole training state and takes its rows of every batch; DistributedData-
Parallel averages the gradients (Li et al. 2020, "PyTorch Distributed").
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn.parallel import DistributedDataParallel

from shared.command_line import EXIT_BAD_INPUT, EXIT_INTERRUPTED, TrainingOptions
from shared.following_run import FollowingRun
from shared.spec import NETWORKS
from shared.training_run import TrainingRun

if TYPE_CHECKING:
    from pytorch_impl.state import TrainState

__all__ = [
    "LostDeviceError",
    "any_process",
    "average",
    "average_statistics",
    "is_process_of_several",
    "joined",
    "launch",
    "open_run",
    "prepare_devices",
    "process_number",
    "replicate",
]

EXIT_WAITED, EXIT_LOST = 3, 4  # of a process that `launch` has started
GO_ON = "the last checkpoint is good, go on with --resume"
LAUNCHER = "GAN_LAUNCHER_PROCESS"  # set by `launch`: the process whose end is that of the others


class LostDeviceError(ValueError):
    """Another process of the run died or no longer answers."""


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


def is_process_of_several() -> bool:
    """Whether torchrun, or `launch`, started this process as one of a run's."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def process_number() -> int:
    """Return which of the run's processes this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def launch(arguments: Sequence[str], devices: int) -> None:
    """Run `python -m pytorch_impl.train` with these arguments in a process for each device.

    Returns when all have ended well. SystemExit passes on the exit code of one that has said
    why; a process that died without a word is a LostDeviceError. None is left behind.
    """
    # The launcher reports what the processes have said already, with a traceback.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    os.environ[LAUNCHER] = str(os.getpid())
    command = ("-m", "pytorch_impl.train", *arguments)
    with tempfile.TemporaryDirectory(prefix="gan-processes-") as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=devices,
            run_id=str(os.getpid()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",  # a port that is free
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        try:
            elastic_launch(config, sys.executable)(*command)
        except SignalException as error:
            raise SystemExit(EXIT_INTERRUPTED) from error
        except ChildFailedError as error:
            raise _cause(error.failures) from error


def _cause(failures: dict[int, ProcessFailure]) -> BaseException:
    """Return what to raise: of several ends, the one that brought the others about."""
    codes = {device: failure.exitcode for device, failure in failures.items()}
    # A process that hangs is killed by the launcher, once another one has waited in vain.
    consequences = (EXIT_LOST, -signal.SIGTERM)
    device = min(
        codes, key=lambda d: (codes[d] != EXIT_WAITED, codes[d] in consequences, codes[d] >= 0, d)
    )
    if codes[device] == EXIT_WAITED:
        return LostDeviceError(
            f"device {device} has waited for another one longer than --wait-limit; {GO_ON}"
        )
    if codes[device] < 0:
        return LostDeviceError(
            f"the process of device {device} was killed by signal {-codes[device]}, and the "
            f"others were stopped; {GO_ON}"
        )
    if codes[device] == EXIT_LOST:
        return LostDeviceError(f"device {device} has lost another one; {GO_ON}")
    return SystemExit(codes[device])


@contextlib.contextmanager
def joined(device: str, wait_limit: float) -> Iterator[None]:
    """Join the other processes for the duration; alone, do nothing.

    A process that waits for another one longer than `wait_limit` seconds, or learns that it is
    gone, raises LostDeviceError.
    """
    if not is_process_of_several():
        yield
        return
    _end_with_launcher()
    backend = "nccl" if device != "cpu" and torch.cuda.is_available() else "gloo"
    limit = datetime.timedelta(seconds=wait_limit)
    try:
        dist.init_process_group(backend, timeout=limit)
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        if LAUNCHER in os.environ:  # it will say it, once
            has_waited = "timed out" in str(error).lower()
            raise SystemExit(EXIT_WAITED if has_waited else EXIT_LOST) from error
        raise LostDeviceError(
            f"device {process_number()} lost another one, which has died or has not answered for "
            f"{wait_limit:g} s; {GO_ON} ({str(error).splitlines()[0]})"
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _end_with_launcher() -> None:
    """End this process when the one that launched it is gone, even by kill -9."""
    launcher = os.environ.get(LAUNCHER)

    def watch() -> None:
        while os.getppid() == int(launcher or 0):
            time.sleep(1.0)
        os._exit(1)

    if launcher:
        threading.Thread(target=watch, daemon=True).start()


def open_run(
    options: TrainingOptions, device: str, versions: Mapping[str, str]
) -> TrainingRun | FollowingRun:
    """Open the run: the first process writes it, the others follow.

    If it fails in one of several, the first process raises ValueError with the first that was
    said, and the others end in silence.
    """
    if not dist.is_initialized():
        return TrainingRun.open(options, device=device, versions=versions)
    run: TrainingRun | FollowingRun | None = None
    problem = None
    try:
        if process_number() == 0:
            run = TrainingRun.open(options, device=device, versions=versions, agree=any_process)
        else:
            run = FollowingRun.open(options, agree=any_process)
    except (ValueError, OSError) as error:
        problem = str(error)
    problems: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(problems, problem)
    if run is not None and not any(problems):
        return run
    if process_number() > 0:
        raise SystemExit(EXIT_BAD_INPUT)
    raise ValueError(next(text for text in problems if text))


def any_process(flag: bool) -> bool:
    """Return whether any process says True; every process must ask."""
    votes = torch.tensor(float(flag), device=_device())
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return bool(votes)


def _device() -> torch.device:
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


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
