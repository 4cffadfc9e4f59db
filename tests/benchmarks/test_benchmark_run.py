"""A real run: a script in another folder, with the other frameworks absent; and its process."""

import importlib
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks.document.stored import write_json
from benchmarks.plan.configuration import MODES
from benchmarks.worker import gate
from shared.interface import IMPLEMENTATIONS
from tests import ROOT
from tests.benchmarks.documents import validate
from tests.benchmarks.stand_ins import INSTALLED, PACKAGES, TINY
from tests.tiers import SLOW_IN_TF_AND_JAX

pytestmark = pytest.mark.skipif(not INSTALLED, reason="no framework is installed")


# --- a real run, as a script, from another folder, with the other frameworks absent ----------

# What Python finds, less some packages: as if they were not installed, for whoever asks.
HIDING = """
import sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in {packages!r} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
"""


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow) for name in INSTALLED]
)
def real_run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    others = tuple(PACKAGES[name] for name in IMPLEMENTATIONS if name != request.param)
    (folder / "sitecustomize.py").write_text(HIDING.format(packages=others))
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *TINY]
    command += ["--framework", request.param, "--time-budget", "30", "--json", "out.json"]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    environment.pop("XLA_FLAGS", None)  # with the compiler as users have it
    finished = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return request.param, finished, json.loads((folder / "out.json").read_text())


def test_document_follows_the_schema_and_has_positive_times(real_run):
    framework, _, document = real_run
    validate(document)
    (row,) = document["rows"]
    assert row["configuration"] == f"{framework}/ours/float32/auto/batch4/threads1/input-device"
    assert row["status"] == "ok"
    assert all(window["ms"] > 0 and window["steps"] == 10 for window in row["windows"])
    assert all(ms > 0 for ms in [*row["latency_ms"], *row["phases_ms"].values()])
    results = document["summary"][0]["results"]
    low, high = results["images_per_second"]["interval_95"]
    assert 0 < low <= results["images_per_second"]["median"] <= high
    assert results["percent_of_gemm_peak"] > 0
    assert results["percent_of_roofline"] > 0
    total, summand = (np.ones(2**25, np.float32) for _ in range(2))
    started = time.perf_counter()
    total += summand
    by_numpy = 12e-9 * len(total) / (time.perf_counter() - started)
    assert 1 / 100 < row["bandwidth_gbytes_per_second"] / by_numpy < 100  # the same unit
    # A framework in memory is at least 50 MB, and these networks are nothing beside it.
    assert 50e6 < results["peak_memory_bytes"] < document["host"]["memory_bytes"]


def test_settings_are_read_back_and_the_gate_has_its_figures(real_run):
    framework, _, document = real_run
    (row,) = document["rows"]
    assert row["settings"]["platform"] == "cpu"
    assert row["settings"]["dtype"] == "float32"
    assert row["settings"]["threads"] == 1
    assert row["settings"]["precision"] == "float32"
    assert row["settings"]["mode"] in (None, *MODES[framework])
    assert {"numpy", PACKAGES[framework]} <= row["versions"].keys()
    check = row["checks"]["equivalence"]
    assert check["passed"]
    # Rounding shows: a difference of exactly nothing would mean that nothing was compared.
    assert 0 < check["worst_array"]["difference"] < gate.ARRAY_BOUND
    assert 0 < check["worst_loss"]["difference"] < gate.LOSS_BOUND


def test_times_hold_the_steps_and_their_checks_are_kept(real_run):
    _, _, document = real_run
    (row,) = document["rows"]
    complete, linear = row["checks"]["complete"], row["checks"]["linear"]
    assert min(complete["left_shares"]) <= complete["bound"]
    low, high = linear["band"]
    assert low <= min(linear["double_ms"]) / min(linear["ms"]) == linear["ratio"] <= high
    assert max(row["checks"]["precision"][name] for name in ("matmul", "convolution")) < 1e-5


def test_terminal_has_the_table_what_was_chosen_and_the_verdict(real_run):
    framework, finished, _ = real_run
    for words in (
        "img/s median",
        "batch 4 (as asked for)",
        "threads 1 of",
        "elapsed",
        "GEMM peak",
        "GB/s",
    ):
        assert words in finished.stdout
    assert f"{framework} trains" in finished.stdout


# --- processes and files ---------------------------------------------------------------------


def test_parent_imports_no_framework():
    code = (
        "import sys; from benchmarks import run; run.parse(['--framework', 'all']);"
        "print([m for m in ('torch', 'tensorflow', 'keras', 'jax', 'flax') if m in sys.modules])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "[]"


def test_peak_memory_is_that_of_the_process_and_not_of_its_parent():
    ask = "from benchmarks.plan import host; print(host.peak_resident_bytes())"
    # The first process holds 400 MB, lets them go, and only then asks, and has another one ask.
    code = f"x = bytes(range(1, 101)) * 4_000_000; del x; {ask}; import subprocess, sys; "
    code += f"subprocess.run([sys.executable, '-c', {ask!r}], check=True)"
    command = [sys.executable, "-u", "-c", code]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    own, of_the_child = map(int, printed.stdout.split())
    assert own > 400e6
    assert of_the_child < 200e6


@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize("framework", INSTALLED)
def test_modes_and_precisions_are_those_of_the_implementations(framework):
    module = {"pytorch": "pytorch_impl", "tf": "tf_impl", "jax": "jax_impl"}[framework]
    state = importlib.import_module(f"{module}.state")
    assert MODES[framework] == state.MODES


def test_json_is_written_in_one_piece_or_not_at_all(tmp_path):
    path = tmp_path / "out.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]
