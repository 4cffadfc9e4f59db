"""Warm-up, throughput windows and single steps of one workload, within a budget of seconds."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.plan.configuration import Request
from benchmarks.worker.sync_contract import check_complete, check_linear, time_steps
from benchmarks.worker.workloads import Workload

PHASE_PREFIX = "benchmarks.worker.main: phase "
WINDOW_MS = 1000.0  # long enough that the sync at a window's end does not show
WARM_UP_AGREEMENT = 0.02
WARM_UP_WINDOWS = (2, 6)  # at least, at most
THROUGHPUT_WINDOWS = (2, 5)
LATENCY_STEPS = (3, 50)
# What fraction of the time left each phase may take; latency has all that then remains.
WARM_UP_SHARE = 0.3
THROUGHPUT_SHARE = 0.75


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


def measure(workload: Workload, request: Request, recorder: Recorder) -> None:
    """Fill a row's warm_up, windows, latency_ms and the checks of its times.

    Raises FloatingPointError if a weight or a loss is no longer finite, ContractError if the
    times mean nothing.
    """
    row, deadline = recorder.row, recorder.started + request.budget
    with recorder.phase("sync_check"):
        row["checks"]["complete"] = check_complete(workload)
    with recorder.phase("warm_up"):
        steps = request.plan.steps or max(1, round(WINDOW_MS / time_steps(workload, 1)))
        settled, tried = _warm_up(workload, steps, _share(deadline, WARM_UP_SHARE))
        row["warm_up"] = {"settled": settled, "windows": tried}
    fastest = min(window["ms"] for window in tried)
    with recorder.phase("linear_check"):
        row["checks"]["linear"] = check_linear(workload, fastest / steps)
    with recorder.phase("throughput"):
        until = _share(deadline, THROUGHPUT_SHARE)
        row["windows"] = _repeated(lambda: _window(workload, steps), THROUGHPUT_WINDOWS, until)
    with recorder.phase("latency"):
        row["latency_ms"] = _repeated(lambda: time_steps(workload, 1), LATENCY_STEPS, deadline)
    losses = {name: float(value) for name, value in workload.step().items()}
    if not all(map(math.isfinite, losses.values())):
        raise FloatingPointError(f"a loss is not finite after the measurement: {losses}")


def _repeated(once: Callable[[], Any], limits: tuple[int, int], until: float) -> list[Any]:
    results: list[Any] = []
    while _goes_on(len(results), limits, until):
        results.append(once())
    return results


def _window(workload: Workload, steps: int) -> dict[str, Any]:
    return {"steps": steps, "ms": time_steps(workload, steps)}


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
