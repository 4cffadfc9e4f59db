"""One measurement in a process of its own: `python -m benchmarks.worker REQUEST`.

REQUEST is `benchmarks.request.Request` as JSON. The answer is one JSON document, a row of the
results, and the only thing on stdout: what a framework prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks import gate, host
from benchmarks.measure import measure
from benchmarks.request import Request
from benchmarks.workloads import FRAMEWORKS, Batch, Workload
from shared.interface import MissingFrameworkError
from shared.streams import latents, stream

BATCHES = 3  # in rotation, so that no step sees the images of the step before
PHASE_PREFIX = "benchmarks.worker: phase "
OUT_OF_MEMORY = ("out of memory", "resource_exhausted", "resourceexhausted", "can't allocate")


class RowError(Exception):
    """The row ends here, with this status and this message."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Recorder:
    """The row as it fills, and the phase that is under way."""

    row: dict[str, Any]
    phase_name: str = "start"
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase into the row, in milliseconds; the launcher reads its name on stderr."""
        self.phase_name = name
        print(f"{PHASE_PREFIX}{name}", file=sys.stderr, flush=True)
        started = time.perf_counter()
        yield
        self.row["phases_ms"][name] = 1e3 * (time.perf_counter() - started)


def run(request: Request) -> dict[str, Any]:
    """Return the row of a request; whatever goes wrong is a row with its status and error."""
    row = empty_row(request.framework, request.round)
    recorder = Recorder(row)
    try:
        _fill(request, recorder)
        row["status"] = "ok"
    except RowError as error:
        row["status"], row["error"] = error.status, str(error)
    except Exception as error:  # noqa: BLE001 - a row is always written
        row["status"] = _status_of(error, recorder.phase_name)
        row["error"] = f"{recorder.phase_name}: {type(error).__name__}: {error}"
    if row["status"] != "ok":
        # No number leaves a row that failed, so that none can be quoted.
        row |= {"warm_up": None, "windows": [], "latency_ms": []}
    return row


def empty_row(framework: str, round_number: int) -> dict[str, Any]:
    """Return a row that holds nothing yet; times in milliseconds, memory in bytes."""
    return {
        "framework": framework,
        "round": round_number,
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
        "checks": {},
    }


def _fill(request: Request, recorder: Recorder) -> None:
    framework, row = FRAMEWORKS[request.framework], recorder.row
    with recorder.phase("import"):
        _configure(request)
        row["versions"] = host.package_versions(request.framework)
    with recorder.phase("check"):
        row["checks"]["equivalence"] = check = check_equivalence(request)
    if not check["passed"]:
        raise RowError("check_failed", gate.describe_failure(check))
    with recorder.phase("init"):
        workload = framework.create(
            request.spec, request.seed, request.dtype, request.device, batches(request)
        )
        workload.synchronize()
    with recorder.phase("compile_first_step"):
        workload.step()
        workload.synchronize()
    row["settings"] = check_settings(request, workload)
    try:
        measure(workload, request, recorder)
    except FloatingPointError as error:
        raise RowError("nan", str(error)) from error
    row["memory"] = {
        "peak_resident_bytes": host.peak_resident_bytes(),
        "peak_device_bytes": workload.peak_device_bytes(),
    }


def _configure(request: Request) -> None:
    """Import the framework on the device that was asked for, or say why that cannot be."""
    try:
        FRAMEWORKS[request.framework].configure(request.device, request.threads)
    except MissingFrameworkError as error:
        raise RowError("missing_framework", str(error)) from error
    except ModuleNotFoundError as error:  # the framework is there, a package beside it is not
        advice = f"pip install -c constraints.txt -e '.[{request.framework}]'"
        raise RowError("missing_framework", f"{error}; install it with: {advice}") from error
    except ValueError as error:
        raise RowError("no_device", str(error)) from error


def check_equivalence(request: Request) -> dict[str, Any]:
    """Make the gate's step on the device that is going to be timed, and compare it."""
    problem = gate.gate_problem(request.spec)
    batch = (problem.real_images, problem.latents)
    workload = FRAMEWORKS[request.framework].create(
        problem.spec, problem.seed, request.dtype, request.device, [batch]
    )
    workload.import_state(problem.start)
    metrics = {name: float(value) for name, value in workload.step().items()}
    return gate.compare(problem, gate.truth(problem), metrics, workload.export_state())


def batches(request: Request) -> list[Batch]:
    """Return the batches in rotation: uniform noise in the image range, and the run's latents."""
    spec = request.spec
    shape = (spec.discriminator_steps * spec.batch_size, *spec.image_shape)
    return [
        (
            stream(request.seed, "benchmark_images", i).uniform(*spec.image_range, shape),
            latents(spec, request.seed, i, spec.latent_batches * spec.batch_size),
        )
        for i in range(BATCHES)
    ]


def check_settings(request: Request, workload: Workload) -> dict[str, Any]:
    """Return the settings as read back; another device or dtype than asked for ends the row."""
    settings = workload.effective_settings()
    asked = {"platform": request.device, "dtype": request.dtype}
    if wrong := {name: settings[name] for name in asked if settings[name] != asked[name]}:
        raise RowError("error", f"asked for {asked}, but the parameters are on {wrong}")
    return settings


def _status_of(error: Exception, phase: str) -> str:
    text = f"{type(error).__name__} {error}".lower()
    if isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY):
        return "oom"
    return "compile_error" if phase == "compile_first_step" else "error"


def main() -> None:
    """Answer the request on the command line."""
    # Everything that is printed from here on, by C++ too, goes to stderr; stdout is the answer's.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump(run(Request.from_json(sys.argv[1])), answer, allow_nan=False)
    answer.close()


if __name__ == "__main__":
    main()
