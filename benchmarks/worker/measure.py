"""Warm-up, throughput windows and single steps of one workload, within a budget of seconds."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager
from typing import Any, Protocol

from benchmarks.plan.request import Request
from benchmarks.worker.sync_contract import check_complete, check_linear, time_steps
from benchmarks.worker.workloads import Workload

WINDOW_MS = 1000.0  # long enough that the sync at a window's end does not show
WARM_UP_AGREEMENT = 0.02
WARM_UP_WINDOWS = (2, 6)  # at least, at most
THROUGHPUT_WINDOWS = (2, 5)
LATENCY_STEPS = (3, 50)
# What part of the time left each phase may take; latency has all that then remains.
WARM_UP_SHARE = 0.3
THROUGHPUT_SHARE = 0.75


class Recorder(Protocol):
    """What this module needs of the worker's recorder."""

    row: dict[str, Any]
    started: float

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Time a phase."""


def measure(workload: Workload, request: Request, recorder: Recorder) -> None:
    """Fill a row's warm_up, windows, latency_ms and the checks of its times.

    Raises FloatingPointError if a weight or a loss is no longer finite, ContractError if the
    times mean nothing.
    """
    row, deadline = recorder.row, recorder.started + request.budget
    with recorder.phase("sync_check"):
        row["checks"]["complete"] = check_complete(workload)
    with recorder.phase("warm_up"):
        steps = request.steps or _steps_per_window(workload)
        settled, tried = _warm_up(workload, steps, _share(deadline, WARM_UP_SHARE))
        row["warm_up"] = {"settled": settled, "windows": tried}
    fastest = min(window["ms"] for window in tried)
    with recorder.phase("linear_check"):
        row["checks"]["linear"] = check_linear(workload, fastest / steps)
    with recorder.phase("throughput"):
        row["windows"] = _windows(workload, steps, _share(deadline, THROUGHPUT_SHARE))
    with recorder.phase("latency"):
        single_steps: list[float] = []
        while _goes_on(len(single_steps), LATENCY_STEPS, deadline):
            single_steps.append(time_steps(workload, 1))
        row["latency_ms"] = single_steps
    losses = {name: float(value) for name, value in workload.step().items()}
    if not all(map(math.isfinite, losses.values())):
        raise FloatingPointError(f"a loss is not finite after the measurement: {losses}")


def _windows(workload: Workload, steps: int, until: float) -> list[dict[str, Any]]:
    windows: list[dict[str, Any]] = []
    while _goes_on(len(windows), THROUGHPUT_WINDOWS, until):
        windows.append(_window(workload, steps))
    return windows


def _window(workload: Workload, steps: int) -> dict[str, Any]:
    return {"steps": steps, "ms": time_steps(workload, steps)}


def _steps_per_window(workload: Workload) -> int:
    """Return how many steps fill a window, by one that is already compiled."""
    return max(1, round(WINDOW_MS / time_steps(workload, 1)))


def _warm_up(workload: Workload, steps: int, until: float) -> tuple[bool, list[dict[str, Any]]]:
    """Run windows until two in a row agree; returns whether they did, and the windows."""
    windows: list[dict[str, Any]] = []
    while _goes_on(len(windows), WARM_UP_WINDOWS, until):
        windows.append(_window(workload, steps))
        if len(windows) > 1:
            before, after = windows[-2]["ms"], windows[-1]["ms"]
            if abs(after - before) <= WARM_UP_AGREEMENT * before:
                return True, windows
    return False, windows


def _share(deadline: float, share: float) -> float:
    """Return the moment at which a share of the time that is left will have passed."""
    now = time.perf_counter()
    return now + share * max(0.0, deadline - now)


def _goes_on(done: int, limits: tuple[int, int], until: float) -> bool:
    """Return whether to measure once more: always up to the minimum, then while there is time."""
    least, most = limits
    return done < least or (done < most and time.perf_counter() < until)
