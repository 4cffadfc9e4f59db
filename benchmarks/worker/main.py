"""One measurement in a separate process: `python -m benchmarks.worker.main REQUEST`.

REQUEST is `benchmarks.plan.configuration.Request` as JSON. The answer is one JSON document, a row
of the results, and the only thing on stdout: what a framework prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from benchmarks.plan import host
from benchmarks.plan.configuration import DTYPE, Request
from benchmarks.worker import exchanges, gate, peaks, precision_probe, workloads
from benchmarks.worker.feed import feed_of_one, make_feed
from benchmarks.worker.measure import Recorder, measure
from benchmarks.worker.sync_contract import ContractError
from benchmarks.worker.workloads import Workload
from shared.interface import MissingFrameworkError
from shared.spec import Conventions

OUT_OF_MEMORY = ("out of memory", "resource_exhausted", "resourceexhausted", "can't allocate")


class CheckError(Exception):
    """A step does not agree with the reference, or has another precision than was asked for."""


class SettingsError(Exception):
    """The framework uses other settings than were asked for."""


def run(request: Request) -> dict[str, Any]:
    """Return the row of a request; whatever goes wrong is a row with its status and error."""
    row = empty_row(request)
    recorder = Recorder(row)
    try:
        _fill(request, recorder)
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
    text = f"{type(error).__name__} {error}".lower()
    if isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY):
        status = "oom"
    elif isinstance(error, MissingFrameworkError):
        return "missing_framework", str(error)
    elif isinstance(error, CheckError | ContractError):
        return "check_failed", str(error)
    elif isinstance(error, SettingsError):
        return "error", str(error)
    elif isinstance(error, FloatingPointError):
        return "nan", str(error)
    elif isinstance(error, ValueError) and phase == "import":
        return "no_device", str(error)
    else:
        status = "compile_error" if phase == "compile_first_step" else "error"
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


def _fill(request: Request, recorder: Recorder) -> None:
    row = recorder.row
    with recorder.phase("import"):
        try:
            workloads.load(request.framework).configure(request)
        except ModuleNotFoundError as error:  # the framework is there, a package beside it is not
            advice = f"pip install -c constraints.txt -e '.[{request.framework}]'"
            raise MissingFrameworkError(f"{error}; install it with: {advice}") from error
        row["versions"] = host.package_versions(request.framework)
    with recorder.phase("check"):
        _check_numerics(request, row)
    with recorder.phase("init"):
        workload: Workload = workloads.load(request.framework).create(
            request.spec, request.plan.seed, request, make_feed(request)
        )
        workload.synchronize()
    with recorder.phase("compile_first_step"):
        workload.step()
        workload.synchronize()
    row["settings"] = check_settings(request, workload, row["checks"]["precision"])
    measure(workload, request, recorder)
    row["memory"] = {
        "peak_resident_bytes": workload.peak_resident_bytes(),
        "peak_device_bytes": workload.peak_device_bytes(),
    }
    if workload.communicate is not None:
        with recorder.phase("communication"):
            row["communication_ms"] = exchanges.measure(workload.communicate)
    with recorder.phase("peak"):  # last, because its arrays are no part of a step's memory
        row |= peaks.worker_peaks(workloads.load(request.framework), request)


def _check_numerics(request: Request, row: dict[str, Any]) -> None:
    """Let the gate and the precision probe fill the row's checks; a failed one ends the row."""
    checks = row["checks"]
    checks["equivalence"] = check = check_equivalence(request)
    if not check["passed"]:
        raise CheckError(gate.describe_failure(check))
    errors = precision_probe.probe(workloads.load(request.framework).operations(request))
    effective = precision_probe.effective_precision(request, check, errors)
    checks["precision"] = errors | {"effective": effective}
    problem = precision_probe.precision_problem(request, check, errors)
    if problem:
        raise CheckError(problem)


def check_equivalence(request: Request) -> dict[str, Any]:
    """Make the gate's step on the device that is going to be timed, and compare it."""
    asked = request.configuration
    spec, conventions = request.spec, Conventions()
    if asked.implementation == "baseline":
        module = workloads.baseline(request.framework)
        spec, conventions = module.spec_of(spec), module.CONVENTIONS
    problem = gate.gate_problem(spec, asked.precision)
    feed = feed_of_one(problem.real_images, problem.latents)
    create = workloads.load(request.framework).create
    workload = create(problem.spec, problem.seed, request, feed)
    workload.import_state(problem.start)
    metrics = {name: float(value) for name, value in workload.step().items()}
    expected = gate.truth(problem, conventions)
    return gate.compare(problem, expected, metrics, workload.export_state(), asked.precision)


def check_settings(request: Request, workload: Workload, probed: dict[str, Any]) -> dict[str, Any]:
    """Return the settings as read back; others than were asked for end the row."""
    settings = workload.effective_settings() | {"precision": probed["effective"]}
    asked = {"platform": request.device, "dtype": DTYPE}
    if request.configuration.mode is not None:
        asked["mode"] = request.configuration.mode
    if wrong := {name: settings[name] for name in asked if settings[name] != asked[name]}:
        raise SettingsError(f"asked for {asked}, but what is in use is {wrong}")
    return settings


def main() -> None:
    """Answer the request on the command line."""
    # Everything that is printed from here on, by C++ too, goes to stderr; stdout is the answer's.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump(run(Request.from_json(sys.argv[1])), answer, allow_nan=False)
    answer.close()


if __name__ == "__main__":
    main()
