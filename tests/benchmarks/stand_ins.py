"""Workers that are told what to do: stand-ins for frameworks, and programs in a worker's place."""

import dataclasses
import importlib.util
import json
import sys
import time
import types
from pathlib import Path

import numpy as np

from benchmarks import run
from benchmarks.plan.configuration import Request
from benchmarks.plan.options import parse
from benchmarks.worker import gate, workloads
from benchmarks.worker import main as worker
from shared.interface import IMPLEMENTATIONS
from shared.reference.layers import conv_forward
from shared.spec import SYSTEMS
from tests.benchmarks.documents import validate

PACKAGES = {"pytorch": "torch", "tf": "tensorflow", "jax": "jax"}
INSTALLED = [name for name in IMPLEMENTATIONS if importlib.util.find_spec(PACKAGES[name])]
QUICKEST = next((name for name in ("pytorch", "jax", "tf") if name in INSTALLED), "pytorch")
# Narrower than the gate's system, so that a fault can be planted in one of the two alone.
# One thread: two, beside another busy process, wait for each other most of the time.
TINY = ["--width", "4", "--batch-size", "4", "--rounds", "1", "--device", "cpu", "--threads", "1"]
TINY += ["--steps", "10", "--time-budget", "1"]


def tiny_request(framework=QUICKEST):
    plan = parse([*TINY, "--framework", framework])
    return Request(plan, plan.configurations[0], 0, 1.0)


def call(*arguments):
    """Run the command in this process; returns its exit code."""
    try:
        return run.main(list(arguments))
    except SystemExit as stop:
        return stop.code


def use_worker(monkeypatch, code):
    """Put a program in the worker's place."""
    monkeypatch.setattr(worker, "WORKER_COMMAND", (sys.executable, "-c", code))


def failed_row(tmp_path, framework=QUICKEST, *more):
    """Run the tiny benchmark, which must fail; returns its only row, from a valid document."""
    path = tmp_path / "out.json"
    assert call(*TINY, "--framework", framework, "--json", str(path), *more) == run.EXIT_FAILED_ROW
    document = json.loads(path.read_text())
    validate(document)
    assert document["summary"][0]["results"] is None
    (row,) = document["rows"]
    return row


SETTINGS = {
    "platform": "cpu", "device": "cpu", "dtype": "float32", "threads": 1, "layout": "any",
    "mode": None, "flags": {},
}  # fmt: skip


def stand_in(timed, **framework):
    """Return the NumPy reference as a framework, with the parts in `timed` of the timed workload.

    Its steps take a millisecond, so that a time is a time.
    """
    truth = gate.truth(gate.gate_problem(SYSTEMS["dcgan64"]))

    def step():
        time.sleep(1e-3)
        return truth.metrics

    def create(spec, *_):
        workload = workloads.Workload(
            step=step,
            synchronize=lambda: 0.0,
            wait=lambda: None,
            export_state=lambda: truth.arrays,
            import_state=lambda arrays: None,
            effective_settings=lambda: SETTINGS,
            peak_device_bytes=lambda: None,
        )
        return dataclasses.replace(workload, **timed) if spec.width != gate.GATE_WIDTH else workload

    operations = {"matmul": np.matmul, "convolution": lambda x, k: conv_forward(x, k, 2, 1)[0]}
    parts = {
        "configure": lambda request: None,
        "create": create,
        "OPERATIONS": operations,
        # The large one of the rates is none of the probe's, which have the default dtype.
        "to_device": lambda request, array, dtype=None: array if dtype is None else np.ones((1, 1)),
        "forget_peak": lambda request: None,
        "addition": lambda request, length: lambda: None,
        "wait": lambda request: None,
    }
    return types.SimpleNamespace(**parts | framework)


def plant(monkeypatch, framework=None, **timed):
    """Return the row of a worker with a stand-in for a framework."""
    replacement = stand_in(timed, **(framework or {}))
    monkeypatch.setattr(worker, "load", lambda name: replacement)
    return worker.run(tiny_request())


def is_running(process_id):
    """Return whether a process of this number is there and has not ended."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
