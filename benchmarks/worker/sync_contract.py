"""Whether a time holds the work that it should hold.

A GPU, and JAX on a CPU too, returns from a step before the step is done. Two things can then be
wrong with a time: the end of it did not wait (`check_complete`), or steps were skipped, cached or
piled up (`check_linear`). A missing wait alone is also linear in the steps: it takes the first.
"""

from __future__ import annotations

import math
import time
from typing import Any

from benchmarks.worker.workloads import Workload

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


class ContractError(Exception):
    """The times of this workload mean nothing; the message has the reason."""


def time_steps(workload: Workload, steps: int) -> float:
    """Return the milliseconds that `steps` steps and one synchronisation at their end take.

    Raises FloatingPointError if the weights are no longer finite.
    """
    started = time.perf_counter()
    for _ in range(steps):
        workload.step()
    value = workload.synchronize()
    milliseconds = 1e3 * (time.perf_counter() - started)
    if not math.isfinite(value):
        raise FloatingPointError(f"the weights are not finite any more: their sum is {value}")
    return milliseconds


def check_complete(workload: Workload) -> dict[str, Any]:
    """Return what fraction of the time of some steps was still to come after `synchronize`.

    Takes steps until they last 50 ms. Raises ContractError where it is more than a tenth, ATTEMPTS
    times in a row.
    """
    steps = 1
    shares: list[float] = []
    while len(shares) < ATTEMPTS and min(shares, default=1.0) > LEFT_BOUND:
        claimed = time_steps(workload, steps)
        started = time.perf_counter()
        workload.wait()
        left = 1e3 * (time.perf_counter() - started)
        if claimed + left < COMPLETE_MS:
            steps *= 2
            continue
        shares.append(left / (claimed + left))
    check = {"steps": steps, "left_shares": shares, "bound": LEFT_BOUND}
    if min(shares) > LEFT_BOUND:
        raise ContractError(
            f"synchronize does not wait: {100 * min(shares):.0f} % of the time of {steps} steps "
            f"comes after it, allowed is {100 * LEFT_BOUND:.0f} %"
        )
    return check


def check_linear(workload: Workload, step_ms: float) -> dict[str, Any]:
    """Return the times of k and of 2k steps, k for 100 ms if one takes `step_ms` milliseconds.

    Raises ContractError where the fastest of each never are in the ratio of about 2.
    """
    low, high = LINEAR_BAND
    k = max(1, math.ceil(LINEAR_MS / step_ms))
    single: list[float] = []
    double: list[float] = []
    ratio = 0.0
    while len(single) < LINEAR_PAIRS[1] and (
        len(single) < LINEAR_PAIRS[0] or not low <= ratio <= high
    ):
        single.append(time_steps(workload, k))
        double.append(time_steps(workload, 2 * k))
        ratio = min(double) / min(single)
    check = {"steps": k, "ms": single, "double_ms": double, "ratio": ratio, "band": [low, high]}
    if not low <= ratio <= high:
        raise ContractError(
            f"{2 * k} steps take {ratio:.2f} times as long as {k}, expected {low} to {high}: "
            "the times do not hold the steps"
        )
    return check
