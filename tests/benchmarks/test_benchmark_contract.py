"""Whether the benchmark notices times that hold no work, and precisions nobody asked for."""

import dataclasses
import itertools
import math
import re
import threading
import time
from functools import cache, partial
from queue import Queue

import numpy as np
import pytest

from benchmarks.plan.configuration import Request
from benchmarks.plan.options import parse
from benchmarks.worker import gate, measure, workloads
from benchmarks.worker import main as worker
from benchmarks.worker.gate import POOLED_BOUNDS
from benchmarks.worker.workloads import RowError
from shared.reference.layers import conv_forward
from shared.reference.step import train_step
from shared.spec import SYSTEMS, Conventions
from tests.benchmarks.documents import validate_row
from tests.benchmarks.stand_ins import (
    INSTALLED,
    SETTINGS,
    TINY,
    failed_row,
    plant,
    tiny_request,
    use_worker,
)
from tests.benchmarks.tensor_cores import cut, patch_reference

STEP = 0.004  # seconds


class Device:
    """A device that works in the background, in order, as a GPU does."""

    def __init__(self):
        self.queue = Queue()
        threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        while True:
            time.sleep(self.queue.get())
            self.queue.task_done()

    def step(self, seconds=STEP):
        self.queue.put(seconds)
        return {}

    def synchronize(self):
        self.queue.join()
        return 0.0

    def workload(self, **parts):
        own = {
            "step": self.step, "synchronize": self.synchronize, "wait": self.queue.join,
            "export_state": dict, "import_state": lambda arrays: None,
            "effective_settings": lambda: SETTINGS, "peak_device_bytes": lambda: None,
        }  # fmt: skip
        return workloads.Workload(**own | parts)


def test_an_honest_device_passes():
    workload = Device().workload()
    check = measure.check_complete(workload)
    assert min(check["left_shares"]) < 0.1
    assert 1.5 < measure.check_linear(workload, 1e3 * STEP)["ratio"] < 2.5


def test_a_missing_sync_is_noticed():
    workload = Device().workload(synchronize=lambda: 0.0)
    with pytest.raises(RowError, match="synchronize does not wait"):
        measure.check_complete(workload)


def test_a_sync_with_one_of_two_networks_is_noticed():
    device, other = Device(), Device()

    def step():
        other.step()
        return device.step(STEP / 2)

    workload = device.workload(step=step, wait=other.queue.join)
    with pytest.raises(RowError, match="does not wait"):
        measure.check_complete(workload)


def skipping():
    """Return a step that works once and then answers from memory."""
    done = []

    def step():
        if not done:
            done.append(time.sleep(STEP))
        return {}

    return step


def growing():
    """Return a step that takes longer and longer."""
    seconds = []

    def step():
        seconds.append(STEP)
        time.sleep(0.05 * sum(seconds))
        return {}

    return step


def fixed():
    """Return a synchronisation that takes longer than the steps do."""
    time.sleep(0.1)
    return 0.0


@pytest.mark.parametrize(
    ("parts", "step_ms"),
    [
        ({"step": skipping(), "synchronize": lambda: time.sleep(0.02) or 0.0}, 4.0),
        ({"step": growing(), "synchronize": lambda: 0.0}, 50.0),
        ({"step": lambda: {}, "synchronize": fixed}, 50.0),
    ],
    ids=["steps that are skipped", "steps that grow", "a sync that is all"],
)
def test_times_that_are_not_linear_are_noticed(parts, step_ms):
    with pytest.raises(RowError, match="as long as"):
        measure.check_linear(Device().workload(**parts), step_ms)


@pytest.mark.slow
@pytest.mark.skipif("jax" not in INSTALLED, reason="JAX is not installed")
def test_a_missing_sync_in_jax_gets_no_number(tmp_path, monkeypatch):
    # JAX returns from a step before it is done on a CPU too; the others do not.
    use_worker(
        monkeypatch,
        """
import jax_impl.state
from benchmarks.worker import main as worker
jax_impl.state.synchronize = lambda state: 0.0
worker.main()
""",
    )
    row = failed_row(tmp_path, "jax", "--width", "16", "--batch-size", "16")
    assert row["status"] == "check_failed"
    assert "synchronize does not wait" in row["error"]


def measured(monkeypatch, step_seconds, budget, *, alone_from=math.inf):
    """Return the row of a step that takes so long on a clock of its own.

    From step number `alone_from` on it has the machine for itself and takes a third of that.
    """
    clock, steps = [0.0], itertools.count(1)

    def step():
        clock[0] += step_seconds if next(steps) < alone_from else step_seconds / 3
        return {"loss": 1.0}

    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    row = worker.empty_row(tiny_request())
    workload = Device().workload(step=step, synchronize=lambda: 0.0, wait=lambda: None)
    request = dataclasses.replace(tiny_request(), budget=budget)
    recorder = measure.Recorder(row)
    clock[0] += 60.0
    measure.measure(workload, request, recorder)
    return row


def test_the_budget_of_a_row_begins_when_its_step_is_compiled(monkeypatch):
    row = measured(monkeypatch, 0.1, 30.0)  # after a minute of starting and compiling
    assert len(row["windows"]) == 5
    assert len(row["latency_ms"]) == 50


def test_a_row_without_time_has_enough_for_an_interval(monkeypatch):
    row = measured(monkeypatch, 2.0, 0.0)
    assert len(row["windows"]) == 3
    assert row["latency_ms"] == [2000.0] * 5


def test_a_machine_that_others_leave_before_the_single_steps_is_no_fault(monkeypatch):
    """Else a framework has no number because somebody else's work ended at that moment."""
    whole = measured(monkeypatch, 2.0, 0.0)
    done = sum(window["steps"] for window in whole["warm_up"]["windows"] + whole["windows"])
    linear, complete = whole["checks"]["linear"], whole["checks"]["complete"]
    done += 3 * linear["steps"] * len(linear["ms"]) + complete["steps"]
    row = measured(monkeypatch, 2.0, 0.0, alone_from=done + 1)
    assert [window["ms"] for window in row["windows"]] == [20_000.0] * 3
    assert row["latency_ms"] == pytest.approx([2000.0 / 3] * 5)


def test_a_single_step_does_not_hold_what_the_synchronisation_dispatches(monkeypatch):
    def slow():
        time.sleep(0.02)
        return 0.0

    device = Device()
    workload = device.workload(synchronize=lambda: device.synchronize() or slow())
    assert 1e3 * STEP <= min(measure.time_single_step(workload) for _ in range(5)) < 20


def test_a_barrier_that_does_not_wait_is_noticed():
    device = Device()
    request = dataclasses.replace(tiny_request(), budget=0.0)
    recorder = measure.Recorder(worker.empty_row(request))
    workload = device.workload(wait=lambda: None)
    with pytest.raises(RowError, match="own barrier does not wait"):
        measure.measure(workload, request, recorder)


# --- precision -----------------------------------------------------------------------------------


def operations(bits, rounding=np.rint):
    own = partial(cut, rounding, bits=bits)
    return {
        "matmul": lambda a, b: np.matmul(own(a), own(b)),
        "convolution": lambda x, k: conv_forward(own(x), own(k), 2, 1)[0],
    }


@pytest.mark.parametrize(
    ("bits", "rounding", "name"),
    [
        (24, np.rint, "float32"),
        (11, np.rint, "tf32"),
        (11, np.trunc, "tf32"),
        (8, np.rint, "bfloat16"),
    ],
)
def test_the_probe_tells_the_precisions_apart(bits, rounding, name):
    errors = gate.probe(operations(bits, rounding))
    assert {gate.precision_of(error) for error in errors.values()} == {name}
    # Each is at least a factor of 1.6 from the limits, TF32 by truncation too.
    limits = {"float32": (0, 1.7e-5), "tf32": (1.7e-5, 1.3e-3), "bfloat16": (1.3e-3, 1)}
    low, high = limits[name]
    assert all(1.6 * low < error < high / 1.6 for error in errors.values()), errors


@pytest.mark.parametrize(
    ("system", "loss"),
    [("dcgan64", "bce"), ("conv28", "bce"), ("mlp28", "lsgan")],
)
@pytest.mark.parametrize("rounding", [np.rint, np.trunc], ids=["nearest", "truncated"])
def test_the_gate_passes_tf32_that_rounds_and_that_truncates(system, loss, rounding, monkeypatch):
    problem = gate.gate_problem(SYSTEMS[system].replace(loss=loss), "tf32")
    truth = gate.truth(problem)
    patch_reference(monkeypatch, rounding)
    step = gate.truth(problem)
    check = gate.compare(problem, truth, step.metrics, step.arrays, "tf32")
    assert check["passed"], check
    assert not gate.compare(problem, truth, step.metrics, step.arrays, "float32")["passed"]


@pytest.mark.parametrize("which", ["matmul", "convolution"])
def test_tf32_that_nobody_asked_for_gets_no_number(which, monkeypatch):
    # As PyTorch's convolutions on a GPU are unless they are told otherwise.
    mixed = operations(24) | {which: operations(11)[which]}
    row = plant(monkeypatch, framework={"OPERATIONS": mixed})
    assert row["status"] == "check_failed"
    assert row["error"].startswith("float32 was asked for, but found is mixed: the errors of the")
    kinds = dict.fromkeys(("matmul", "convolution"), "float32") | {which: "tf32"}
    shown = re.findall(r"(\w+) \S+ \((\w+)\)", row["error"])
    assert dict(shown) == kinds
    assert row["windows"] == []
    validate_row(row)


def request_for(name):
    plan = parse([*TINY, "--precision", name])
    return Request(plan, plan.configurations[0], 0, 1.0)


def test_bfloat16_that_is_float32_gets_no_number():
    exact = {"worst_array": {"difference": 1e-6}}
    coarse = {"worst_array": {"difference": 1e-1}}
    errors = gate.probe(operations(24))
    assert gate.effective_precision("float32", exact, errors)[0] == "float32"
    found = gate.effective_precision("bfloat16", exact, errors)
    assert found == ("float32", "a step agrees to 1e-06")
    assert gate.effective_precision("bfloat16", coarse, errors)[0] == "bfloat16"
    half = errors | gate.probe({"matmul": operations(11)["matmul"], **operations(24)})
    half["matmul"] = 3e-4
    assert gate.effective_precision("float32", exact, half)[0] == "mixed"


# --- the gate in less than float32 ---------------------------------------------------------------


@cache
def coarse_problem(system):
    """Return the problem of TF32, narrower than that of bfloat16, and its truth."""
    problem = gate.gate_problem(SYSTEMS[system], "tf32")
    return problem, gate.truth(problem)


@pytest.mark.parametrize("asked", POOLED_BOUNDS)
@pytest.mark.parametrize("system", ["dcgan64", "conv28", "mlp28"])
def test_the_coarse_gate_passes_the_truth_and_names_what_differs(system, asked):
    problem, truth = coarse_problem(system)
    check = gate.compare(problem, truth, truth.metrics, truth.arrays, asked)
    assert check["passed"]
    assert check["worst_array"]["difference"] == 0.0
    name = "generator_optimizer/step"
    late = truth.arrays | {name: truth.arrays[name] + 1}
    assert not gate.compare(problem, truth, truth.metrics, late, asked)["passed"]


@pytest.mark.parametrize(
    ("system", "wrong"),
    [
        ("dcgan64", {"batch_norm_statistics": "not_in_generator_step"}),
        ("dcgan64", {"discriminator_batches": "merged"}),
        ("dcgan64", {"discriminator_loss_scale": 0.5}),
        ("dcgan64", {"detach_fake": False}),
        ("dcgan64", {"update_order": "simultaneous"}),
        ("dcgan64", {"real_label": 0.9}),
        ("dcgan64", {"adam_beta1": 0.9}),
        ("dcgan64", {"conv_transpose_kernel": "flipped"}),
        ("conv28", {"batch_norm_running_variance": "biased"}),
        ("conv28", {"detach_fake": False}),
        ("mlp28", {"detach_fake": False}),
        ("mlp28", {"generator_objective": "saturating"}),
    ],
    ids=str,
)
def test_the_coarse_gate_stops_a_planted_fault(system, wrong):
    problem, truth = coarse_problem(system)
    step = train_step(
        problem.spec,
        {n: a.astype(np.float64) for n, a in problem.start.items()},
        problem.real_images.astype(np.float64),
        problem.latents.astype(np.float64),
        Conventions(**wrong),
    )
    for asked in POOLED_BOUNDS:
        check = gate.compare(problem, truth, step.metrics, step.arrays, asked)
        assert not check["passed"], check


@pytest.mark.slow
@pytest.mark.skipif("pytorch" not in INSTALLED, reason="PyTorch is not installed")
def test_an_extra_pass_of_the_discriminator_gets_no_number(tmp_path, monkeypatch):
    # It changes no weight and no loss: only the running statistics move once too often.
    use_worker(
        monkeypatch,
        """
from pytorch_impl import train
from benchmarks.worker import main as worker
honest = train.train_step
def with_extra_pass(state, real_images, latents):
    metrics = honest(state, real_images, latents)
    state.discriminator(real_images)
    return metrics
train.train_step = with_extra_pass
worker.main()
""",
    )
    row = failed_row(tmp_path, "pytorch")
    assert row["status"] == "check_failed"
    name = row["checks"]["equivalence"]["worst_array"]["name"]
    assert name.startswith("discriminator/batch_norm")
    assert name.endswith(("mean", "var"))


def test_a_worker_that_runs_out_of_memory_says_so(tmp_path, monkeypatch):
    use_worker(
        monkeypatch,
        """
import resource
import numpy as np
from benchmarks.worker import main as worker
from tests.benchmarks.stand_ins import stand_in
def step():
    limit = 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return np.ones(2**30)
worker.load = lambda name: stand_in({"step": step})
worker.main()
""",
    )
    row = failed_row(tmp_path)
    assert row["status"] == "oom"
    assert "compile_first_step" in row["error"]


def test_the_row_of_a_stand_in_is_ok(monkeypatch):
    # Otherwise a fault that is planted in one is nothing.
    row = plant(monkeypatch)
    assert (row["error"], row["status"]) == (None, "ok")
    validate_row(row)
    assert worker.empty_row(request_for("fp32"))["status"] == "error"
