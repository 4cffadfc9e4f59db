"""Start workers one at a time, wait for their answers, and never wait for ever."""

import json
import os
import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.plan.configuration import Request
from benchmarks.plan.host import CACHES, ROOT, THREAD_VARIABLES
from benchmarks.worker.main import empty_row
from benchmarks.worker.measure import PHASE_PREFIX
from shared.files.child_process import ChildProcess, ChildTimeoutError

WORKER_COMMAND = (sys.executable, "-m", "benchmarks.worker.main")
ERROR_TAIL = 2000  # characters of stderr kept in a row
_PHASE = re.compile(rf"^{re.escape(PHASE_PREFIX)}(.*)\n?", re.MULTILINE)


def run_worker(request: Request, time_limit: float) -> dict[str, Any]:
    """Return a worker's row, after `time_limit` seconds at most; of one that fails the reason."""
    command = (*WORKER_COMMAND, request.to_json())
    environment = worker_environment(request.plan.device, request.configuration.threads)
    row, kills = empty_row(request), out_of_memory_kills()
    with (
        # A cache of the round's own: what an earlier one compiled would shorten its compilation.
        tempfile.TemporaryDirectory() as cache,
        ChildProcess(command, environment=environment | dict.fromkeys(CACHES, cache)) as worker,
    ):
        try:
            answer = worker.output(time_limit)
        except ChildTimeoutError:
            phase = ["start", *_PHASE.findall(worker.errors())][-1].strip()
            message = f"no answer within {time_limit:g} seconds; it was in phase {phase!r}"
            return row | {"status": "timeout", "error": message}
        stderr = _PHASE.sub("", worker.errors())[-ERROR_TAIL:]
        exit_status = worker.exit_status or 0
    try:
        answered: dict[str, Any] = json.loads(answer)
    except ValueError:
        status = "oom" if out_of_memory_kills() > kills else "error"
        return row | {"status": status, "error": _death(exit_status, stderr), "stderr": stderr}
    return answered if answered["status"] == "ok" else answered | {"stderr": stderr}


def out_of_memory_kills() -> int:
    """Return how many processes beside this one the kernel has killed for memory; 0 if unknown."""
    try:
        lines = Path("/sys/fs/cgroup/memory.events").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def worker_environment(device: str, threads: int) -> dict[str, str]:
    """Return the environment of a worker: everything a framework reads before it is imported."""
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    environment |= {
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # No folder of the caller's may shadow a package of the worker's.
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    if device == "cpu":
        environment |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    return environment


def _death(exit_status: int, stderr: str) -> str:
    """Return one line on a worker that ended without an answer."""
    if exit_status < 0:
        name = signal.Signals(-exit_status).name
        hint = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
        return f"the worker was killed by {name}{hint}"
    last_line = stderr.strip().splitlines()[-1:] or ["nothing on stderr"]
    return f"the worker ended with exit code {exit_status} and no answer: {last_line[0]}"
