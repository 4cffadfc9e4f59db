"""The benchmark: its counts, its gate, a real run, and what it says when things go wrong."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks import run
from benchmarks.document.stored import write_json
from benchmarks.plan import host
from benchmarks.plan.configuration import MODES, PRECISIONS, Request
from benchmarks.plan.costs import flops_per_image, layer_costs
from benchmarks.plan.options import choose_device, parse
from benchmarks.worker import gate, launcher, rates
from benchmarks.worker import main as worker
from benchmarks.worker.workloads import batches
from shared.interface import IMPLEMENTATIONS
from shared.reference.step import train_step
from shared.run.console import EXIT_INTERRUPTED
from shared.spec import SYSTEMS, Conventions
from shared.spec.compute import PRECISIONS as COMPUTE_PRECISIONS
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
    tiny_request,
    use_worker,
    without_peak,
)
from tests.tiers import SLOW_IN_TF_AND_JAX

pytestmark = pytest.mark.skipif(not INSTALLED, reason="no framework is installed")

needs_no_gpu = pytest.mark.skipif(host.gpu_driver() is not None, reason="there is a GPU here")


# --- the work ----------------------------------------------------------------------------------


def test_the_step_of_dcgan64_is_the_number_that_torch_counts():
    assert flops_per_image(SYSTEMS["dcgan64"]) == 2_274_623_488
    for network, count in (("generator", 104_628_224), ("discriminator", 103_817_216)):
        layers = layer_costs(SYSTEMS["dcgan64"], network)
        assert sum(layer.multiply_adds for layer in layers) == count


def test_the_count_does_not_depend_on_head_loss_or_batch_and_grows_with_the_width():
    system = SYSTEMS["dcgan64"]
    # The linear head multiplies 4 x 4 x 512 numbers by one weight each, as the conv head does.
    assert flops_per_image(SYSTEMS["dcgan64-lsgan"]) == flops_per_image(system)
    assert flops_per_image(system.replace(loss="minimax", batch_size=2)) == flops_per_image(system)
    # Hidden layers grow with the square of the width, those beside images and latents linearly.
    assert 2 < flops_per_image(system.replace(width=128)) / flops_per_image(system) < 4


def test_order_is_shuffled_in_every_round_and_follows_from_the_seed():
    plan = parse(["--rounds", "20", "--seed", "3"])
    order = [(configuration.framework, number) for configuration, number in plan.order]
    rounds = [[name for name, number in order if number == i] for i in range(20)]
    assert all(sorted(names) == sorted(IMPLEMENTATIONS) for names in rounds)
    assert len({tuple(names) for names in rounds}) > 2
    assert plan.order == parse(["--rounds", "20", "--seed", "3"]).order
    assert plan.order != parse(["--rounds", "20", "--seed", "4"]).order


# --- the equivalence gate ----------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("loss", ["bce", "lsgan"])
def test_gate_passes_the_truth_itself(system, loss):
    problem = gate.gate_problem(SYSTEMS[system].replace(loss=loss))
    truth = gate.truth(problem)
    check = gate.compare(problem, truth, truth.metrics, truth.arrays)
    assert check["passed"]
    assert check["worst_loss"]["difference"] == check["worst_array"]["difference"] == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_norm_running_variance": "biased"},
        {"batch_norm_epsilon": 1e-3},
        {"batch_norm_statistics": "not_in_generator_step"},
        {"discriminator_loss_scale": 0.5},
        {"adam_epsilon": 1e-7},
        {"detach_fake": False},
        {"update_order": "simultaneous"},
        {"discriminator_batches": "merged"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_gate_stops_a_planted_fault(wrong):
    require_stopped("dcgan64", wrong)


@pytest.mark.parametrize(
    ("system", "wrong"),
    [
        ("conv28", {"batch_norm_running_variance": "biased"}),
        ("conv28", {"flatten_order": "chw"}),
        ("conv28", {"detach_fake": False}),
        ("conv28", {"update_order": "simultaneous"}),
        ("mlp28", {"discriminator_loss_scale": 0.5}),
        ("mlp28", {"adam_beta1": 0.9}),
    ],
    ids=str,
)
def test_gate_stops_a_planted_fault_in_other_systems(system, wrong):
    require_stopped(system, wrong)


def require_stopped(system, wrong):
    problem = gate.gate_problem(SYSTEMS[system])
    step = train_step(
        problem.spec,
        {n: a.astype(np.float64) for n, a in problem.start.items()},
        problem.real_images.astype(np.float64),
        problem.latents.astype(np.float64),
        Conventions(**wrong),
    )
    check = gate.compare(problem, gate.truth(problem), step.metrics, step.arrays)
    assert not check["passed"]
    assert "does not agree" in gate.describe_failure(check)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gate_stops_a_tensor_that_is_not_finite_and_names_it(bad):
    problem = gate.gate_problem(SYSTEMS["dcgan64"])
    truth = gate.truth(problem)
    name = "discriminator/conv_3/kernel"
    check = gate.compare(
        problem, truth, truth.metrics, truth.arrays | {name: truth.arrays[name] * bad}
    )
    assert not check["passed"]
    assert name in gate.describe_failure(check)
    json.dumps(check, allow_nan=False)


# --- a real run, as a script, from another folder, with the other frameworks absent --------------


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
    scope="module", params=[pytest.param(name, marks=SLOW_IN_TF_AND_JAX) for name in INSTALLED]
)
def real_run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    others = tuple(PACKAGES[name] for name in IMPLEMENTATIONS if name != request.param)
    (folder / "sitecustomize.py").write_text(HIDING.format(packages=others))
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *TINY]
    command += ["--framework", request.param, "--time-budget", "30", "--json", "out.json"]
    environment = os.environ | {"PYTHONPATH": str(folder)}
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
    bandwidths = [entry["gbytes_per_second"] for entry in document["bandwidths"]]
    assert len(bandwidths) == 2  # NumPy's and the framework's: the same memory and unit
    assert bandwidths[1] == row["bandwidth_gbytes_per_second"]
    assert 1 / 100 < bandwidths[1] / bandwidths[0] < 100
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


# --- what goes wrong -----------------------------------------------------------------------------


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
    monkeypatch.setattr(launcher, "out_of_memory_kills", lambda: next(kills))
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
from benchmarks.worker import launcher
launcher.WORKER_COMMAND = (sys.executable, "-c", {hanging(pid_file)!r})
launcher.measure_gemm_peak = lambda threads: None
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

    without_peak(monkeypatch)
    monkeypatch.setattr(launcher, "run_worker", run_worker)
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


def test_step_that_is_wrong_gets_no_number(tmp_path, monkeypatch, capsys):
    use_worker(
        monkeypatch,
        f"""
import dataclasses, types
from benchmarks.worker import main as worker
from benchmarks.worker import workloads
honest = workloads.load({QUICKEST!r})
def create(*arguments):
    workload = honest.create(*arguments)
    def twice():
        workload.step()
        return workload.step()
    return dataclasses.replace(workload, step=twice)
workloads.load = lambda name: types.SimpleNamespace(**vars(honest) | {{"create": create}})
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


def test_a_framework_that_failed_is_not_run_again_and_the_others_are(monkeypatch):
    without_peak(monkeypatch)
    seen = []

    def run_worker(request, time_limit):
        seen.append((request.configuration.framework, request.round))
        status = "timeout" if request.configuration.framework == "tf" else "oom"
        return worker.empty_row(request) | {"status": status, "error": "x"}

    monkeypatch.setattr(launcher, "run_worker", run_worker)
    assert call("--rounds", "3", "--device", "cpu") == run.EXIT_FAILED_ROW
    assert sorted(seen) == [(name, 0) for name in sorted(IMPLEMENTATIONS)]


@pytest.mark.parametrize(("budget", "rounds"), [("0.1", 1), ("100", 3)])
def test_rounds_beyond_the_time_budget_are_left_out(budget, rounds, monkeypatch):
    without_peak(monkeypatch)
    seen, row = [], plant(monkeypatch)

    def run_worker(request, time_limit):
        seen.append(request.round)
        time.sleep(0.1)
        own = {"configuration": request.configuration.id, "round": request.round}
        return row | own

    monkeypatch.setattr(launcher, "run_worker", run_worker)
    assert call("--rounds", "3", "--device", "cpu", "--time-budget", budget) == 0
    assert seen == sorted(list(range(rounds)) * len(IMPLEMENTATIONS))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--framework", "mxnet"],
        ["--system", "stylegan"],
        ["--loss", "hinge"],
        ["--device", "tpu"],
        ["--batch-size", "1"],
        ["--batch-size", "many"],
        ["--batch-size", "8", "8"],
        ["--precision", "fp8"],
        ["--precision", "tf32", "--device", "cpu"],
        ["--mode", "jit", "--framework", "pytorch"],
        ["--baselines", "--loss", "lsgan"],
        ["--data", "."],
        ["--data", "/nowhere", "--input", "loader"],
        ["--input", "disk"],
        ["--report", "/dev/null/report"],
        ["--width", "0"],
        ["--steps", "0"],
        ["--rounds", "0"],
        ["--threads", "0"],
        ["--threads", "1000000"],
        ["--time-budget", "0"],
        ["--time-budget", "nan"],
        ["--time-limit", "inf"],
        ["--seed", "-1"],
        ["--json", "/nowhere/at/all.json"],
        ["--json", "/"],
        ["--frame", "jax"],
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_before_anything_runs(arguments, monkeypatch, capsys):
    def run_worker(*_):
        raise AssertionError("a worker was started")

    monkeypatch.setattr(launcher, "run_worker", run_worker)
    monkeypatch.setattr(launcher, "measure_gemm_peak", run_worker)
    assert call(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert "error" in output.err


# --- the rest ----------------------------------------------------------------------------------


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
    assert set(COMPUTE_PRECISIONS) == set(PRECISIONS.values())


def test_every_combination_is_a_configuration_with_a_name_of_its_own():
    arguments = ["--batch-size", "8", "16", "--precision", "fp32", "bf16", "--baselines", "--aa"]
    plan = parse([*arguments, "--mode", "jit", "xla", "eager", "compile", "--device", "cpu"])
    ids = [configuration.id for configuration in plan.configurations]
    # Four modes of ours and three baselines, twice, at two sizes and two precisions.
    assert len(ids) == len(set(ids)) == (4 + 3) * 2 * 2 * 2
    assert plan.time_budget == 10 * len(ids) * plan.rounds
    assert plan.modes == ["jit", "xla", "eager", "compile"]


@pytest.mark.parametrize("source", ["host", "loader"])
def test_batches_that_are_not_on_the_device_are_new_and_named(source):
    plan = parse([*TINY, "--framework", QUICKEST, "--input", source])
    (configuration,) = plan.configurations
    assert configuration.id.endswith(f"input-{source}")
    request = Request(plan, configuration, 0, 1.0)
    found = list(itertools.islice(batches(request, lambda batch: batch), 3))
    for images, z in found:
        assert images.shape == (4, 64, 64, 3)
        assert z.shape == (4, 100)
        assert images.dtype == z.dtype == np.float32
    assert not np.array_equal(found[0][0], found[1][0])
    assert not np.array_equal(found[0][1], found[1][1])


def test_loading_is_measured_on_jpeg_files(monkeypatch):
    monkeypatch.setattr(rates, "FILES", 16)
    monkeypatch.setattr(rates, "BATCH_SECONDS", 0.05)
    found = rates.loading_rates("dcgan64")
    assert found["files"] == 16
    assert found["decoded_per_second"] > 1
    assert found["batched_per_second"] > found["decoded_per_second"]


def test_auto_is_one_device_for_all_frameworks(monkeypatch):
    monkeypatch.setattr(host, "gpu_driver", lambda: "/dev/nvidia0")
    assert choose_device("auto") == ("gpu", "auto: found /dev/nvidia0")
    assert parse([]).batch_sizes == [SYSTEMS["dcgan64"].batch_size]
    monkeypatch.setattr(host, "gpu_driver", lambda: None)
    assert choose_device("auto")[0] == "cpu"
    assert choose_device("gpu")[0] == "gpu"


def test_request_survives_the_process_border():
    request = tiny_request()
    assert Request.from_json(request.to_json()) == request


def test_json_is_written_in_one_piece_or_not_at_all(tmp_path):
    path = tmp_path / "out.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]
