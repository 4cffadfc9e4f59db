"""What goes wrong in a benchmark: a row that says so, and never a number."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from benchmarks import run
from benchmarks.plan import host
from benchmarks.worker import main as worker
from shared.interface import IMPLEMENTATIONS
from shared.run.console import EXIT_INTERRUPTED
from tests import ROOT
from tests.benchmarks.documents import make_row, validate, validate_row
from tests.benchmarks.stand_ins import (
    INSTALLED,
    PACKAGES,
    QUICKEST,
    SETTINGS,
    TINY,
    call,
    failed_row,
    is_running,
    plant,
    stand_in,
    tiny_request,
    use_worker,
)
from tests.tiers import SLOW_IN_TF_AND_JAX

pytestmark = pytest.mark.skipif(not INSTALLED, reason="no framework is installed")
needs_no_gpu = pytest.mark.skipif(host.gpu_driver() is not None, reason="there is a GPU here")


def test_without_groups_of_processes_it_says_so(monkeypatch, capsys):
    """As on Windows, which also lacks what the description of the machine asks for."""
    for name in ("killpg", "sysconf", "getloadavg"):
        monkeypatch.delattr(os, name)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert run.main(["--framework", "pytorch"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "benchmarks/run.py: error: starting other programs needs a POSIX system"
    )
    assert error.count("\n") == 1


@pytest.mark.parametrize("variable", ["TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"])
def test_a_worker_compiles_into_a_folder_of_its_own(monkeypatch, variable):
    use_worker(monkeypatch, f"import os, sys; sys.exit(os.environ[{variable!r}])")
    monkeypatch.setenv(variable, "/shared")
    assert variable not in host.environment()
    folders = {worker.run_worker(tiny_request(), 20.0)["stderr"] for _ in range(2)}
    assert len(folders) == 2
    assert "/shared" not in str(folders)


def test_the_state_of_a_gpu_and_what_changes_its_speed_are_kept(monkeypatch, tmp_path):
    (tmp_path / "nvidia-smi").write_text(
        '#!/bin/sh\n[ "$3" = --id=3 ] && echo "580.1, 1980 MHz, 2619 MHz, 1980 MHz, 700.00 W"'
    )
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    assert host.gpu_state()["driver_version"] == "580.1"
    assert host.gpu_state()["power.limit"] == "700.00 W"
    monkeypatch.setenv("PATH", "/nowhere")
    assert host.gpu_state() == {}
    names = {"TORCHINDUCTOR_X", "PYTORCH_X", "CUBLAS_X", "CUDNN_X", "TRITON_X"}
    for name in names:
        monkeypatch.setenv(name, "1")
    assert names <= host.environment().keys()


def test_the_peak_of_memory_is_that_after_the_gate(monkeypatch):
    order = []
    parts = {"forget_peak": lambda request: order.append("forget")}
    honest = stand_in({}).OPERATIONS
    product = honest["matmul"]
    parts["OPERATIONS"] = honest | {"matmul": lambda *x: order.append("probe") or product(*x)}
    row = plant(monkeypatch, framework=parts, peak_device_bytes=lambda: order.append("read"))
    assert row["status"] == "ok"
    assert order == ["probe", "forget", "read"]


# --- workers that end early ------------------------------------------------------------------


@pytest.mark.parametrize("framework", IMPLEMENTATIONS)
def test_missing_framework_says_how_to_install_it(framework, tmp_path, monkeypatch, capsys):
    hide = f"import sys; sys.modules[{PACKAGES[framework]!r}] = None\n"
    use_worker(monkeypatch, f"{hide}from benchmarks.worker import main as worker; worker.main()")
    row = failed_row(tmp_path, framework)
    assert row["status"] == "missing_framework"
    advice = f"pip install -c constraints.txt -e '.[{framework}]'"
    assert advice in row["error"]
    assert advice in capsys.readouterr().out


@needs_no_gpu
@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize("framework", INSTALLED)
def test_gpu_that_is_not_there_is_an_error_and_no_number(framework, tmp_path, capsys):
    row = failed_row(tmp_path, framework, "--device", "gpu")
    assert row["status"] == "no_device"
    assert "gpu was asked for" in row["error"]
    assert row["windows"] == row["latency_ms"] == []
    assert "No verdict" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL, as the kernel does when memory runs out"),
        ("raise SystemExit('the driver is broken')", "exit code 1 and no answer: the driver is"),
        ("print('not JSON')", "exit code 0 and no answer"),
    ],
    ids=["killed", "exits", "babbles"],
)
def test_worker_that_dies_is_a_row(code, words, tmp_path, monkeypatch, capsys):
    use_worker(monkeypatch, code)
    row = failed_row(tmp_path)
    assert row["status"] == "error"
    assert words in row["error"]
    assert words in capsys.readouterr().out


def test_worker_that_the_kernel_killed_for_memory_is_oom(tmp_path, monkeypatch):
    kills = iter((3, 4))
    monkeypatch.setattr(worker, "out_of_memory_kills", lambda: next(kills))
    use_worker(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    row = failed_row(tmp_path)
    assert row["status"] == "oom"
    assert "SIGKILL" in row["error"]


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def hanging(pid_file):
    """Return a worker that starts a child, writes its pid, and hangs in a phase."""
    return f"""
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))
print("benchmarks.worker.main: phase warm_up", file=sys.stderr, flush=True)
time.sleep(60)
"""


def test_worker_that_hangs_is_killed_with_its_children(tmp_path, monkeypatch):
    pid_file = tmp_path / "pid"
    use_worker(monkeypatch, hanging(pid_file))
    row = failed_row(tmp_path, QUICKEST, "--time-limit", "2")
    assert row["status"] == "timeout"
    assert "within 2 seconds" in row["error"]
    assert "'warm_up'" in row["error"]
    wait_for(lambda: not is_running(pid_file.read_text()))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_ended_takes_its_worker_along(number, code, tmp_path):
    pid_file, path = tmp_path / "pid", tmp_path / "out.json"
    arguments = [*TINY, "--framework", QUICKEST, "--json", str(path)]
    parent = f"""
import sys
from benchmarks import run
from benchmarks.worker import main as worker
worker.WORKER_COMMAND = (sys.executable, "-c", {hanging(pid_file)!r})
sys.exit(run.main({arguments!r}))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    wait_for(lambda: pid_file.exists() and pid_file.read_text())
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert b"Traceback" not in errors
    wait_for(lambda: not is_running(pid_file.read_text()))
    document = json.loads(path.read_text())
    validate(document)
    assert document["interrupted"]
    assert document["rows"] == []
    assert document["summary"][0]["status"] == "not_run"


def test_what_was_measured_before_ctrl_c_is_kept(tmp_path, monkeypatch, capsys):
    path, seen = tmp_path / "out.json", []

    def run_worker(request, time_limit):
        if seen:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        seen.append(request.configuration.framework)
        return make_row(request, [50.0, 51.0])

    monkeypatch.setattr(worker, "run_worker", run_worker)
    report = tmp_path / "report"
    arguments = ["--device", "cpu", "--json", str(path), "--report", str(report)]
    assert call(*arguments) == EXIT_INTERRUPTED
    document = json.loads(path.read_text())
    validate(document)
    assert document["interrupted"]
    assert [row["status"] for row in document["rows"]] == ["ok"]
    assert sorted(s["status"] for s in document["summary"]) == ["not_run", "not_run", "ok"]
    assert f"{seen[0]} trains 50.5 img/s" in capsys.readouterr().out
    assert "Interrupted" in (report / "index.html").read_text()


# --- answers that count for nothing ----------------------------------------------------------


@pytest.mark.slow
def test_step_that_is_wrong_gets_no_number(tmp_path, monkeypatch, capsys):
    use_worker(
        monkeypatch,
        f"""
import dataclasses, types
from benchmarks.worker import main as worker
honest = worker.load({QUICKEST!r})
def create(*arguments):
    workload = honest.create(*arguments)
    def twice():
        workload.step()
        return workload.step()
    return dataclasses.replace(workload, step=twice)
worker.load = lambda name: types.SimpleNamespace(**vars(honest) | {{"create": create}})
worker.main()
""",
    )
    row = failed_row(tmp_path)
    assert row["status"] == "check_failed"
    assert row["checks"]["equivalence"]["worst_array"]["name"] in row["error"]
    assert row["windows"] == []
    assert "img/s (95" not in capsys.readouterr().out


def raising(error):
    def step():
        raise error

    return step


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        (
            {"synchronize": lambda: 0.0, "step": raising(RuntimeError("no such op"))},
            "compile_error",
        ),
        ({"step": raising(MemoryError())}, "oom"),
        ({"step": raising(RuntimeError("RESOURCE_EXHAUSTED: Out of memory"))}, "oom"),
        ({"synchronize": lambda: float("nan")}, "nan"),
        ({"synchronize": lambda: float("inf")}, "nan"),
        ({"step": lambda: {"generator_loss": float("nan")}}, "nan"),
        ({"peak_device_bytes": raising(RuntimeError("no counter"))}, "error"),
    ],
)
def test_status_of_a_worker(parts, status, monkeypatch):
    row = plant(monkeypatch, **parts)
    assert row["status"] == status
    assert (row["windows"] == []) == (row["latency_ms"] == []) == (status != "ok")
    validate_row(row)


@pytest.mark.parametrize(("name", "value"), [("platform", "gpu"), ("dtype", "bfloat16")])
def test_other_settings_than_asked_for_are_an_error(name, value, monkeypatch):
    row = plant(monkeypatch, effective_settings=lambda: SETTINGS | {name: value})
    assert row["status"] == "error"
    assert value in row["error"]


# --- what is run afterwards ------------------------------------------------------------------


def test_a_framework_that_failed_is_not_run_again_and_the_others_are(monkeypatch):
    seen = []

    def run_worker(request, time_limit):
        seen.append((request.configuration.framework, request.round))
        status = "timeout" if request.configuration.framework == "tf" else "oom"
        return worker.empty_row(request) | {"status": status, "error": "x"}

    monkeypatch.setattr(worker, "run_worker", run_worker)
    assert call("--rounds", "3", "--device", "cpu") == run.EXIT_FAILED_ROW
    assert sorted(seen) == [(name, 0) for name in sorted(IMPLEMENTATIONS)]


@pytest.mark.parametrize(("budget", "rounds"), [("0.1", 1), ("100", 3)])
def test_rounds_beyond_the_time_budget_are_left_out(budget, rounds, monkeypatch):
    seen, row = [], plant(monkeypatch)

    def run_worker(request, time_limit):
        seen.append(request.round)
        time.sleep(0.1)
        own = {"configuration": request.configuration.id, "round": request.round}
        return row | own

    monkeypatch.setattr(worker, "run_worker", run_worker)
    assert call("--rounds", "3", "--device", "cpu", "--time-budget", budget) == 0
    assert seen == sorted(list(range(rounds)) * len(IMPLEMENTATIONS))
