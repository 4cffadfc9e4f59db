"""One measurement in a separate process: `python -m benchmarks.worker.main REQUEST`.

REQUEST is `benchmarks.plan.configuration.Request` as JSON. The answer is one JSON document, a row
of the results, and the only thing on stdout: what a framework prints goes to stderr. `run_worker`
starts such a process and never waits for ever.
"""

import importlib
import json
import os
import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.plan import host
from benchmarks.plan.configuration import DTYPE, Request
from benchmarks.worker import gate, workloads
from benchmarks.worker.measure import (
    PHASE_PREFIX,
    Recorder,
    communication_ms,
    framework_rates,
    measure,
)
from benchmarks.worker.workloads import RowError, Workload
from shared.files.child_process import ChildProcess, ChildTimeoutError
from shared.interface import MissingFrameworkError, load_implementation
from shared.run.console import is_out_of_memory
from shared.spec import Conventions

WORKER_COMMAND = (sys.executable, "-m", "benchmarks.worker.main")
ERROR_TAIL = 2000  # characters of stderr kept in a row
_PHASE = re.compile(rf"^{re.escape(PHASE_PREFIX)}(.*)\n?", re.MULTILINE)


def run(
    request: Request, checked: dict[tuple[str, str, str | None], dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Return the row of a request; whatever goes wrong is a row with its status and error.

    `checked`: the figures of the gate by implementation, precision and mode of what has passed it
    in this process; neither that nor the rates of the device are measured once more.
    """
    row = empty_row(request)
    recorder = Recorder(row)
    try:
        _fill(request, recorder, {} if checked is None else checked)
        row["status"] = "ok"
    except Exception as error:  # noqa: BLE001 - a row is always written
        row["status"], row["error"] = _diagnosis(error, recorder.phase_name)
        # No number leaves a row that failed, so that none can be quoted.
        row |= {"warm_up": None, "windows": [], "latency_ms": []}
        row |= {"peak_gflops_per_second": None, "bandwidth_gbytes_per_second": None}
        row.pop("communication_ms", None)
    return row


def _diagnosis(error: Exception, phase: str) -> tuple[str, str]:
    """Return the status of a row that ends with an error, and its message."""
    if isinstance(error, RowError):
        return error.status, str(error)
    if phase == "import" and isinstance(error, MissingFrameworkError):
        return "missing_framework", str(error)
    if phase == "import" and isinstance(error, ValueError):
        return "no_device", str(error)
    status = "compile_error" if phase == "compile_first_step" else "error"
    status = "oom" if is_out_of_memory(error) else status
    return status, f"{phase}: {type(error).__name__}: {error}"


def empty_row(request: Request) -> dict[str, Any]:
    """Return a row that holds nothing yet; times in milliseconds, memory in bytes."""
    return {
        "configuration": request.configuration.id,
        "round": request.round,
        "status": "error",
        "error": None,
        "python": sys.version.split()[0],
        "versions": {},
        "environment": host.environment(),
        "settings": None,
        "phases_ms": {},
        "warm_up": None,
        "windows": [],
        "latency_ms": [],
        "memory": None,
        "peak_gflops_per_second": None,
        "bandwidth_gbytes_per_second": None,
        "checks": {},
    }


def _fill(request: Request, recorder: Recorder, checked: dict[Any, dict[str, Any]]) -> None:
    row, asked = recorder.row, request.configuration
    way = asked.implementation, asked.precision, asked.mode
    is_new = way not in checked
    with recorder.phase("import"):
        framework = load(asked.framework)
        framework.configure(request)
        row["versions"] = host.package_versions(asked.framework)
    with recorder.phase("check"):
        if is_new:
            check_numerics(request, framework, row["checks"])
            checked[way] = dict(row["checks"])
        row["checks"] |= checked[way]
    framework.forget_peak(request)
    with recorder.phase("init"):
        workload: Workload = framework.create(request.spec, request.plan.seed, request)
        workload.synchronize()
    with recorder.phase("compile_first_step"):
        workload.step()
        workload.synchronize()
    row["settings"] = _settings(request, workload, row["checks"]["precision"]["effective"])
    measure(workload, request, recorder)
    if request.plan.device == "gpu":  # now, because its clocks are those of the work
        row["settings"]["flags"] |= host.gpu_state()
    row["memory"] = {
        "peak_resident_bytes": host.peak_resident_bytes(),
        "peak_device_bytes": workload.peak_device_bytes(),
    }
    if workload.communicate is not None:
        with recorder.phase("communication"):
            row["communication_ms"] = communication_ms(workload.communicate)
    if request.measures_rates and is_new:
        with recorder.phase("peak"):  # last, because its arrays are no part of a step's memory
            row |= framework_rates(framework, request)


def load(framework: str) -> Any:
    """Return a framework's functions, a module; MissingFrameworkError where it is not installed.

    - configure(request): apply what must come first; ValueError where there is no such device.
    - create(spec, seed, request, batch=None): a Workload on this batch, or on those of the request.
    - OPERATIONS: "matmul" and "convolution", a 4x4 one (NHWC, HWIO, stride 2, padding 1), of what
      `to_device` returns; NumPy takes the result.
    - to_device(request, array, dtype="float32"): the array on the device, where `@` multiplies it.
    - addition(request, length): what adds one float32 array to another once, in place.
    - communication(request, spec, state): the exchanges of a step, for several devices.
    - forget_peak(request): count the device's peak of memory anew, where the framework can.
    - wait(request), read_back(state), peak_device_bytes(), which a GPU has: for `create_workload`.
    """
    load_implementation(framework)
    return importlib.import_module(f"benchmarks.worker.{framework}_workload")


def check_numerics(request: Request, framework: Any, checks: dict[str, Any]) -> None:
    """Make the gate's step on the device that is going to be timed; a failed check ends the row."""
    spec, conventions, asked = request.spec, Conventions(), request.configuration.precision
    if request.configuration.implementation == "baseline":
        module = workloads.baseline(request.configuration.framework)
        conventions = module.CONVENTIONS
        spec = spec.replace(generator_batch=module.GENERATOR_BATCH)
    problem = gate.gate_problem(spec, asked)
    batch = problem.real_images, problem.latents
    workload: Workload = framework.create(problem.spec, problem.seed, request, batch)
    workload.import_state(problem.start)
    metrics = {name: float(value) for name, value in workload.step().items()}
    expected = gate.truth(problem, conventions)
    check = gate.compare(problem, expected, metrics, workload.export_state(), asked)
    checks["equivalence"] = check
    if not check["passed"]:
        raise RowError("check_failed", gate.describe_failure(check))
    errors = gate.probe(workloads.operations(framework, request))
    effective, reason = gate.effective_precision(asked, check, errors)
    checks["precision"] = errors | {"effective": effective}
    if effective != asked:
        raise RowError("check_failed", f"{asked} was asked for, but found is {effective}: {reason}")


def _settings(request: Request, workload: Workload, precision: str) -> dict[str, Any]:
    """Return the settings as read back; others than were asked for end the row."""
    settings = workload.effective_settings() | {"precision": precision}
    asked = {"platform": request.plan.device, "dtype": DTYPE}
    asked |= {"mode": mode} if (mode := request.configuration.mode) else {}
    if wrong := {name: settings[name] for name in asked if settings[name] != asked[name]}:
        raise RowError("error", f"asked for {asked}, but what is in use is {wrong}")
    return settings


def run_worker(request: Request, time_limit: float) -> dict[str, Any]:
    """Return a worker's row, after `time_limit` seconds at most; of one that fails the reason."""
    command = (*WORKER_COMMAND, request.to_json())
    environment = worker_environment(request.plan.device, request.configuration.threads)
    row, kills = empty_row(request), out_of_memory_kills()
    with (
        # A cache of the round's own: what an earlier one compiled would shorten its compilation.
        tempfile.TemporaryDirectory() as cache,
        ChildProcess(
            command, environment=environment | dict.fromkeys(host.CACHES, cache)
        ) as worker,
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
    environment = os.environ | dict.fromkeys(host.THREAD_VARIABLES, str(threads))
    environment |= {
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # No folder of the caller's may shadow a package of the worker's.
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(host.ROOT), os.environ.get("PYTHONPATH")])),
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


def main() -> None:
    """Answer the request on the command line."""
    # Everything that is printed from here on, by C++ too, goes to stderr; stdout is the answer's.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump(run(Request.from_json(sys.argv[1])), answer, allow_nan=False)
    answer.close()


if __name__ == "__main__":
    main()
