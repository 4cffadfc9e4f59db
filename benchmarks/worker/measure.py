"""What is timed of a workload and of a device, and whether a time holds the work that it should.

A GPU, and JAX on a CPU too, returns from a step before it is done. So the end of a time may not
have waited (`check_complete`), or steps were skipped, cached or piled up (`check_linear`).
"""

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.plan.configuration import Request
from benchmarks.worker.workloads import RowError, Workload

PHASE_PREFIX = "benchmarks.worker.main: phase "
WARM_UP_AGREEMENT = 0.02
WARM_UP_WINDOWS = (2, 6)  # at least, at most
THROUGHPUT_WINDOWS = (3, 5)  # at least as many as make an interval, whatever the time
LATENCY_STEPS = (5, 50)
LATENCY_LEAST = 0.5  # of the time of a step in a window: less is a barrier that does not wait
COMMUNICATION_WARM_UP = 2
COMMUNICATION_CALLS = (5, 200)
COMMUNICATION_SECONDS = 0.5
# What fraction of the time left each phase may take; latency has all that then remains.
WARM_UP_SHARE = 0.3
THROUGHPUT_SHARE = 0.75

ATTEMPTS = 3  # a busy machine disturbs one measurement; a broken contract breaks all

# Nothing that a step computes may be under way after `synchronize`, so what a barrier then takes
# is its own time: below 1 % of 50 ms on CPUs. With no wait it takes nearly all (JAX: 0.98).
LEFT_BOUND = 0.1
COMPLETE_MS = 50.0

# t(n) = n·s + c with a sync c, so t(2k) / t(k) = 2 - c / (k·s + c): between 1 where steps after
# the first cost nothing, and 2. A step that gets slower with every step, as a growing graph does,
# tends to 4 (t ~ n²); one whose memory spills jumps. The band ends halfway from 2 to 1 and, as
# far again, above 2; the fastest of several windows of 100 ms lie within 1.9 and 2.1 when idle.
LINEAR_BAND = (1.5, 2.5)
LINEAR_MS = 100.0
LINEAR_PAIRS = (2, 20)  # at least, at most

# Of the square matrix products: large enough for all cores, done in under a second.
PRODUCT_SIZE = {"cpu": 1024, "gpu": 8192}
SUSTAINED_SECONDS = {"cpu": 0.1, "gpu": 0.5}
REPEATS = 2  # after the first run of that length
# Elements of each of the two float32 arrays of an addition: more than a common cache holds.
ADDITION_SIZE = {"cpu": 2**25, "gpu": 2**27}
# Reads of both arrays and a write; docs/benchmarks.md#how-it-is-measured says why in place.
ADDITION_BYTES = 3 * 4


@dataclass
class Recorder:
    """The row as it fills, and the phase that is under way."""

    row: dict[str, Any]
    phase_name: str = "start"

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase into the row, in milliseconds; `run_worker` reads its name on stderr."""
        self.phase_name = name
        print(f"{PHASE_PREFIX}{name}", file=sys.stderr, flush=True)
        started = time.perf_counter()
        yield
        self.row["phases_ms"][name] = 1e3 * (time.perf_counter() - started)


def measure(workload: Workload, request: Request, recorder: Recorder) -> None:
    """Fill a row's warm_up, windows, latency_ms and the checks of its times.

    The request's budget begins here. RowError if a weight or loss is not finite, or times are void.
    """
    row, deadline = recorder.row, time.perf_counter() + request.budget

    def moment(share: float) -> float:
        """Return when this share of the time that is left will have passed."""
        now = time.perf_counter()
        return now + share * max(0.0, deadline - now)

    def window() -> dict[str, Any]:
        return {"steps": steps, "ms": time_steps(workload, steps)}

    with recorder.phase("sync_check"):
        row["checks"]["complete"] = check_complete(workload)
    with recorder.phase("warm_up"):
        steps = request.plan.steps or max(1, round(request.window_ms / time_steps(workload, 1)))
        tried = _repeated(window, WARM_UP_WINDOWS, moment(WARM_UP_SHARE), _is_settled)
        row["warm_up"] = {"settled": _is_settled(tried), "windows": tried}
    step_ms = min(one["ms"] for one in tried) / steps
    with recorder.phase("linear_check"):
        row["checks"]["linear"] = check_linear(workload, step_ms)
    with recorder.phase("throughput"):
        row["windows"] = _repeated(window, THROUGHPUT_WINDOWS, moment(THROUGHPUT_SHARE))
    with recorder.phase("latency"):
        single = partial(time_single_step, workload)
        row["latency_ms"] = _repeated(single, LATENCY_STEPS, deadline)
        attempts = 1
        while statistics.median(row["latency_ms"]) < LATENCY_LEAST * step_ms:
            if attempts == ATTEMPTS:
                raise RowError("check_failed", "the framework's own barrier does not wait")
            # Others may have left the machine since the windows: both again, close together.
            step_ms, attempts = time_steps(workload, steps) / steps, attempts + 1
            row["latency_ms"] = _repeated(single, LATENCY_STEPS, until=0.0)
    losses = {name: float(value) for name, value in workload.step().items()}
    if not all(map(math.isfinite, losses.values())):
        raise RowError("nan", f"a loss is not finite after the measurement: {losses}")


def _milliseconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - started)


def time_steps(workload: Workload, steps: int) -> float:
    """Return the milliseconds of steps and of one synchronisation; RowError for bad weights."""
    started = time.perf_counter()
    for _ in range(steps):
        workload.step()
    value = workload.synchronize()
    milliseconds = 1e3 * (time.perf_counter() - started)
    if not math.isfinite(value):
        raise RowError("nan", f"the weights are not finite any more: their sum is {value}")
    return milliseconds


def time_single_step(workload: Workload) -> float:
    """Return the milliseconds of one step up to the framework's own barrier.

    `synchronize` would add what it dispatches itself: sums over weights, and their way back.
    """
    started = time.perf_counter()
    workload.step()
    workload.wait()
    milliseconds = 1e3 * (time.perf_counter() - started)
    time_steps(workload, 0)  # checks the weights
    return milliseconds


def check_complete(workload: Workload) -> dict[str, Any]:
    """Return what fraction of the time of some steps was still to come after `synchronize`.

    Of so many that they last 50 ms. RowError where it is over a tenth ATTEMPTS times in a row.
    """
    steps = 1
    shares: list[float] = []
    while len(shares) < ATTEMPTS and min(shares, default=1.0) > LEFT_BOUND:
        claimed, left = time_steps(workload, steps), _milliseconds(workload.wait)
        if claimed + left < COMPLETE_MS:
            steps *= 2
        else:
            shares.append(left / (claimed + left))
    if min(shares) > LEFT_BOUND:
        raise RowError(
            "check_failed",
            f"synchronize does not wait: {100 * min(shares):.0f} % of the time of {steps} steps "
            f"comes after it, allowed is {100 * LEFT_BOUND:.0f} %",
        )
    return {"steps": steps, "left_shares": shares, "bound": LEFT_BOUND}


def check_linear(workload: Workload, step_ms: float) -> dict[str, Any]:
    """Return the times of k and of 2k steps, k for 100 ms if one takes `step_ms` milliseconds.

    Raises RowError where the fastest of each never are in the ratio of about 2.
    """
    low, high = LINEAR_BAND
    k = max(1, math.ceil(LINEAR_MS / step_ms))

    def ratio_of(pairs: list[tuple[float, float]]) -> float:
        return min(double for _, double in pairs) / min(single for single, _ in pairs)

    pairs = _repeated(
        lambda: (time_steps(workload, k), time_steps(workload, 2 * k)),
        LINEAR_PAIRS,
        is_enough=lambda pairs: low <= ratio_of(pairs) <= high,
    )
    ratio, (single, double) = ratio_of(pairs), map(list, zip(*pairs, strict=True))
    if not low <= ratio <= high:
        raise RowError(
            "check_failed",
            f"{2 * k} steps take {ratio:.2f} times as long as {k}, expected {low} to {high}: "
            "the times do not hold the steps",
        )
    return {"steps": k, "ms": single, "double_ms": double, "ratio": ratio, "band": [low, high]}


def communication_ms(communicate: Callable[[], None]) -> float:
    """Return the median milliseconds of the exchanges of one step, of calls in half a second."""
    for _ in range(COMMUNICATION_WARM_UP):  # the first ones compile
        communicate()
    until = time.perf_counter() + COMMUNICATION_SECONDS
    once = partial(_milliseconds, communicate)
    return statistics.median(_repeated(once, COMMUNICATION_CALLS, until))


def best_rate(
    once: Callable[[], Any], amount: float, wait: Callable[[], Any], least_seconds: float
) -> float:
    """Return the best sustained rate of what `once` does, in 1e9 a second.

    `wait` waits for all of it, `amount` is that of once: operations or bytes. Sustained: for at
    least `least_seconds`, as a GPU slows its clock down. The best, not the median: a peak is what
    the machine can do undisturbed.
    """

    def seconds(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            last = once()  # held, because a framework may wait only for what still exists
        wait()
        elapsed = time.perf_counter() - started
        del last
        return elapsed

    seconds(1)  # warms the caches, starts threads, compiles
    count = 1
    while (elapsed := seconds(count)) < least_seconds:
        count *= 2
    return 1e-9 * count * amount / min(elapsed, *(seconds(count) for _ in range(REPEATS)))


def framework_rates(framework: Any, request: Request) -> dict[str, float]:
    """Return the fields of a row: the best GFLOP/s of products and GB/s of additions."""
    device, precision = request.plan.device, request.configuration.precision
    size, length = PRODUCT_SIZE[device], ADDITION_SIZE[device]
    rate = partial(
        best_rate, wait=partial(framework.wait, request), least_seconds=SUSTAINED_SECONDS[device]
    )
    # Random numbers, because equal ones cost a GPU less power, so that it runs faster.
    square = np.random.default_rng(0).random((size, size), np.float32) - np.float32(0.5)
    left = framework.to_device(
        request, square, "bfloat16" if precision == "bfloat16" else "float32"
    )
    add = framework.addition(request, length)
    return {
        "peak_gflops_per_second": rate(lambda: left @ left, 2.0 * size**3),
        "bandwidth_gbytes_per_second": rate(add, ADDITION_BYTES * length),
    }


def _repeated(
    once: Callable[[], Any],
    limits: tuple[int, int],
    until: float = math.inf,
    is_enough: Callable[[list[Any]], bool] = lambda results: False,
) -> list[Any]:
    """Return what `once` gives: the least number of times, then while there is time and need."""
    least, most = limits
    results: list[Any] = []
    while len(results) < least or (
        len(results) < most and time.perf_counter() < until and not is_enough(results)
    ):
        results.append(once())
    return results


def _is_settled(windows: list[dict[str, Any]]) -> bool:
    before, after = (window["ms"] for window in windows[-2:])
    return abs(after - before) <= WARM_UP_AGREEMENT * before
