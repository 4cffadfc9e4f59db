"""The rates of a machine, against clocks that are told the time."""

import json
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest

from benchmarks.worker import measure
from tests import ROOT
from tests.benchmarks.stand_ins import INSTALLED, plant, stand_in, tiny_request
from tests.tiers import SLOW_IN_TF_AND_JAX


def test_rates_are_in_1e9_a_second_sustained_and_the_best_is_kept(monkeypatch):
    # The first is the warm-up; then twice as many until they last a second, and that twice more.
    clock, waited = [0.0], []
    seconds = iter([9.0, 0.1, *[0.2] * 2, *[0.5] * 4, *[0.25] * 4, *[0.75] * 4])

    def once():
        clock[0] += next(seconds)

    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    found = measure.best_rate(once, 3e9, lambda: waited.append(clock[0]), least_seconds=1.0)
    # 3e9 in a quarter of a second: the burst in a tenth of a second is none that lasts.
    assert found == pytest.approx(12.0)
    assert waited == pytest.approx([9.0, 9.1, 9.5, 11.5, 12.5, 15.5])  # after all of each


def test_the_time_of_the_wait_is_in_a_rate(monkeypatch):
    # As on a GPU, which returns before it has computed, and waits only for what still exists.
    clock, held = [0.0], []

    class Result:
        def __init__(self):
            held.append(weakref.ref(self))

    def wait():
        assert held[-1]() is not None
        clock[0] += 0.5 * len(held)
        held.clear()

    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    assert measure.best_rate(Result, 1e9, wait, least_seconds=0.1) == pytest.approx(2.0)


def test_a_row_has_gflops_and_gbytes_per_second(monkeypatch):
    clock = [0.0]

    def each(seconds):
        def once():
            clock[0] += seconds

        return once

    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])

    class Square(np.ndarray):
        def __matmul__(self, other):
            clock[0] += 1e-11 * 2 * len(self) ** 3  # 100 GFLOP/s
            assert self.std() > 0.2  # random: equal numbers cost a GPU less power

    parts = {
        "to_device": lambda request, array, dtype: array.view(Square),
        # 20 GB/s: two arrays of float32 read and one written.
        "addition": lambda request, length: each(12 * length / 20e9),
    }
    found = measure.framework_rates(stand_in({}, **parts), tiny_request())
    assert found["peak_gflops_per_second"] == pytest.approx(100.0)
    assert found["bandwidth_gbytes_per_second"] == pytest.approx(20.0)


ADD = """
import inspect, json, numpy as np
from benchmarks.plan import host
from benchmarks.worker import main as worker
from tests.benchmarks.stand_ins import tiny_request
request, length = tiny_request({framework!r}), 2**24
framework = worker.load({framework!r})
framework.configure(request)
framework.addition(request, 1024)()
before = host.peak_resident_bytes()
add = framework.addition(request, length)
for _ in range(5):
    add()
framework.wait(request)
arrays = (host.peak_resident_bytes() - before) / (4 * length)
total = np.asarray(inspect.getclosurevars(add).nonlocals["total"])
print(json.dumps([arrays, float(total.min()), float(total.max()), total.dtype.name, total.size]))
"""


@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize("framework", INSTALLED)
def test_additions_are_made_each_time_and_in_place(framework):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("XLA_FLAGS", None)  # a compiler that optimises, as users have it
    command = [sys.executable, "-c", ADD.format(framework=framework)]
    finished = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    arrays, *total = json.loads(finished.stdout)
    assert total == [6.0, 6.0, "float32", 2**24]  # one and five times one
    assert 1.9 < arrays < 2.5  # a result of its own would be a third array


def test_a_row_that_failed_keeps_no_rate(monkeypatch):
    def fail(request, length):
        raise MemoryError

    row = plant(monkeypatch, framework={"addition": fail})
    assert row["status"] == "oom"
    assert row["peak_gflops_per_second"] is row["bandwidth_gbytes_per_second"] is None
    assert plant(monkeypatch)["bandwidth_gbytes_per_second"] > 0
