"""Several processes: one for each device, on nccl with GPUs and gloo with CPUs.

`launch` starts them on one host, torchrun on several:

    torchrun --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
        -m pytorch_impl.train --devices 2 --out DIR

Each loads the whole global batch and takes its own rows. The first alone prints and writes.
"""

import contextlib
import datetime
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NoReturn

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import parse_args, run

from shared.run.console import EXIT_BAD_INPUT, EXIT_INTERRUPTED
from shared.run.training import Processes

EXIT_WAITED, EXIT_LOST = 3, 4  # of a process that `launch` has started
GO_ON = "the last checkpoint is good, go on with --resume"
LAUNCHER = "GAN_LAUNCHER_PROCESS"  # set by `launch`: the process whose end is that of the others


def is_process_of_several() -> bool:
    """Whether torchrun, or `launch`, started this process as one of a run's."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def process_number() -> int:
    """Return which of the run's processes this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def launch(arguments: Sequence[str], devices: int) -> None:
    """Train in a process for each device; SystemExit or ConnectionError where one has failed."""
    # The launcher reports what the processes have printed already, with a traceback.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    os.environ[LAUNCHER] = str(os.getpid())
    with tempfile.TemporaryDirectory(prefix="gan-processes-") as logs:
        own = ["--standalone", f"--nproc-per-node={devices}", f"--log-dir={logs}"]
        try:
            run(parse_args([*own, "--module", "pytorch_impl.train", *arguments]))
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
    code = codes[device]
    if code >= 0 and code not in (EXIT_WAITED, EXIT_LOST):
        return SystemExit(code)
    reason = {
        EXIT_WAITED: "has waited for another one longer than --wait-limit",
        EXIT_LOST: "has lost another one",
    }.get(code, f"was killed by signal {-code}, and the others were stopped")
    return ConnectionError(f"the process of device {device} {reason}; {GO_ON}")


@contextlib.contextmanager
def joined(device: str, wait_limit: float) -> Iterator[None]:
    """Join the other processes; ConnectionError where one is gone or silent for `wait_limit` s."""
    if not is_process_of_several():
        yield
        return
    if LAUNCHER in os.environ:
        threading.Thread(target=_end_with_launcher, daemon=True).start()
    backend = "nccl" if device != "cpu" and torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=datetime.timedelta(seconds=wait_limit))
        yield
    except (ValueError, OSError):
        if LAUNCHER in os.environ and dist.get_rank() > 0:
            _end_after_others(EXIT_BAD_INPUT)  # the first one prints it
        raise
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        if LAUNCHER in os.environ:  # it will print it, once
            if "timed out" in str(error).lower():
                os._exit(EXIT_WAITED)
            _end_after_others(EXIT_LOST)
        raise ConnectionError(
            f"device {process_number()} lost another one, which has died or has not answered for "
            f"{wait_limit:g} s; {GO_ON} ({str(error).splitlines()[0]})"
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def leave_others(code: int) -> int:
    """Return the exit code of a command; one of several processes ends here."""
    if is_process_of_several():
        # An orderly end was seen to abort, by signal 6, after all was done.
        os._exit(code)  # `run_command` has flushed what was printed
    return code


def _end_after_others(code: int) -> NoReturn:
    """End this process when the one that is the cause has said why, and the launcher stops all."""
    time.sleep(5.0)
    os._exit(code)


def _end_with_launcher() -> None:
    """End this process when the one that launched it is gone, even by kill -9."""
    while os.getppid() == int(os.environ[LAUNCHER]):
        time.sleep(1.0)
    os._exit(1)


def processes() -> Processes | None:
    """Return the processes of the run, if there are several; the first one writes it."""
    return Processes(dist.get_rank() == 0, _any_process) if dist.is_initialized() else None


def _any_process(flag: bool) -> bool:
    votes = torch.tensor(float(flag), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return bool(votes)
