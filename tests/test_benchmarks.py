"""The benchmark: its counts, its statistics, its checks, and what it says when things go wrong."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from benchmarks import gate, host, launcher, report, results, run, statistics, worker, workloads
from benchmarks.flops import flops_per_image, multiply_adds
from benchmarks.options import choose_device, parse
from benchmarks.request import Request
from shared.interface import IMPLEMENTATIONS
from shared.reference.step import train_step
from shared.spec import SYSTEMS, Conventions

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = json.loads((ROOT / "benchmarks" / "results_schema.json").read_text())
PACKAGES = {"pytorch": "torch", "tf": "tensorflow", "jax": "jax"}
INSTALLED = [name for name in IMPLEMENTATIONS if importlib.util.find_spec(PACKAGES[name])]
pytestmark = pytest.mark.skipif(not INSTALLED, reason="no framework is installed")
QUICKEST = next((name for name in ("pytorch", "jax", "tf") if name in INSTALLED), "pytorch")
# Narrower than the gate's system, so that a fault can be planted in one of the two alone.
# One thread: two, beside another busy process, wait for each other most of the time.
TINY = ["--width", "4", "--batch-size", "4", "--rounds", "1", "--device", "cpu", "--threads", "1"]
TINY += ["--steps", "10", "--time-budget", "1"]

needs_no_gpu = pytest.mark.skipif(host.gpu_driver() is not None, reason="there is a GPU here")


def tiny_request(framework=QUICKEST):
    return parse([*TINY, "--framework", framework]).request(framework, 0, 1.0)


def validate(document):
    jsonschema.Draft202012Validator(SCHEMA).validate(document)


def call(*arguments):
    """Run the command in this process; returns its exit code."""
    try:
        return run.main(list(arguments))
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def no_peak(monkeypatch):
    monkeypatch.setattr(launcher, "measure_gemm_peak", lambda threads, time_limit: None)


def use_worker(monkeypatch, code):
    monkeypatch.setattr(launcher, "WORKER_COMMAND", (sys.executable, "-c", code))


# --- the work ----------------------------------------------------------------------------------


def test_the_step_of_dcgan64_is_the_number_that_torch_counts():
    assert flops_per_image(SYSTEMS["dcgan64"]) == 2_274_623_488
    assert sum(multiply_adds(SYSTEMS["dcgan64"], "generator")) == 104_628_224
    assert sum(multiply_adds(SYSTEMS["dcgan64"], "discriminator")) == 103_817_216


def test_the_count_does_not_depend_on_head_loss_or_batch_and_grows_with_the_width():
    system = SYSTEMS["dcgan64"]
    # The linear head multiplies 4 x 4 x 512 numbers by one weight each, as the conv head does.
    assert flops_per_image(SYSTEMS["dcgan64-lsgan"]) == flops_per_image(system)
    assert flops_per_image(system.replace(loss="minimax", batch_size=2)) == flops_per_image(system)
    # Hidden layers grow with the square of the width, those beside images and latents linearly.
    assert 2 < flops_per_image(system.replace(width=128)) / flops_per_image(system) < 4


# --- statistics --------------------------------------------------------------------------------


def test_median_of_rounds_weighs_rounds_not_windows():
    assert statistics.median_of_rounds([[1.0, 1.0, 1.0, 1.0, 1.0], [3.0], [5.0]]) == 3.0
    assert statistics.median_of_rounds([[4.0, 1.0, 3.0, 2.0]]) == 2.5


def test_quantiles_interpolate():
    assert statistics.quantiles([4.0, 1.0, 2.0, 3.0, 5.0], (0.0, 0.25, 0.5, 1.0)) == [1, 2, 3, 5]
    assert statistics.quantiles([0.0, 10.0], (0.25, 0.95)) == [2.5, 9.5]


def test_bootstrap_interval_of_constants_is_the_constant():
    assert statistics.bootstrap_interval([[2.0, 2.0], [2.0]], seed=0) == (2.0, 2.0)


def test_bootstrap_interval_of_two_rounds_spans_them():
    # Both draws hit the same round with probability 1/2, so 95 % must hold both ends.
    assert statistics.bootstrap_interval([[1.0] * 3, [2.0] * 3], seed=1) == (1.0, 2.0)


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(0)
    hits = 0
    for seed in range(20):
        low, high = statistics.bootstrap_interval([list(draw.normal(10, 1, 40))], seed)
        hits += low <= 10 <= high
    # 19 expected; at a true coverage of 90 %, fewer than 14 has a probability of 2e-3.
    assert hits >= 14


@pytest.mark.parametrize("rounds", [[], [[1.0], []]])
def test_statistics_of_nothing_are_an_error(rounds):
    with pytest.raises(ValueError, match="at least one"):
        statistics.median_of_rounds(rounds)
    with pytest.raises(ValueError, match="at least one"):
        statistics.bootstrap_interval(rounds, seed=0)


def test_order_is_shuffled_in_every_round_and_follows_from_the_seed():
    plan = parse(["--rounds", "20", "--seed", "3"])
    order = run.draw_order(plan)
    rounds = [[name for name, number in order if number == i] for i in range(20)]
    assert all(sorted(names) == sorted(IMPLEMENTATIONS) for names in rounds)
    assert len({tuple(names) for names in rounds}) > 2
    assert order == run.draw_order(plan)
    assert order != run.draw_order(parse(["--rounds", "20", "--seed", "4"]))


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


@pytest.fixture(scope="module", params=INSTALLED)
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
    assert row["framework"] == framework
    assert row["status"] == "ok"
    assert all(window["ms"] > 0 and window["steps"] == 10 for window in row["windows"])
    assert all(ms > 0 for ms in [*row["latency_ms"], *row["phases_ms"].values()])
    results = document["summary"][0]["results"]
    low, high = results["images_per_second"]["interval_95"]
    assert 0 < low <= results["images_per_second"]["median"] <= high
    assert results["percent_of_gemm_peak"] > 0
    # A framework in memory is at least 50 MB, and these networks are nothing beside it.
    assert 50e6 < results["peak_memory_bytes"] < document["host"]["memory_bytes"]


def test_settings_are_read_back_and_the_gate_has_its_figures(real_run):
    framework, _, document = real_run
    (row,) = document["rows"]
    assert row["settings"]["platform"] == "cpu"
    assert row["settings"]["dtype"] == "float32"
    assert row["settings"]["threads"] == 1
    assert {"numpy", PACKAGES[framework]} <= row["versions"].keys()
    check = row["checks"]["equivalence"]
    assert check["passed"]
    # Rounding shows: a difference of exactly nothing would mean that nothing was compared.
    assert 0 < check["worst_array"]["difference"] < gate.ARRAY_BOUND
    assert 0 < check["worst_loss"]["difference"] < gate.LOSS_BOUND


def test_ten_steps_take_about_ten_times_as_long_as_one(real_run):
    _, _, document = real_run
    (row,) = document["rows"]
    # t(n) = n·s + c with a sync c that is shorter than a step, so t(10) / t(1) is between 5.5 and
    # 10. The fastest of each kind counts; a quarter more on either side is left to the machine.
    ratio = min(window["ms"] for window in row["windows"]) / min(row["latency_ms"])
    assert 4.1 < ratio < 12.5


def test_terminal_has_the_table_what_was_chosen_and_the_verdict(real_run):
    framework, finished, _ = real_run
    for words in ("img/s median", "batch 4 (as asked for)", "threads 1 of", "elapsed", "GEMM peak"):
        assert words in finished.stdout
    assert f"{framework} trains" in finished.stdout


# --- what goes wrong -----------------------------------------------------------------------------


def failed_row(tmp_path, framework=QUICKEST, *more):
    """Run the tiny benchmark, which must fail; returns its only row, from a valid document."""
    path = tmp_path / "out.json"
    assert call(*TINY, "--framework", framework, "--json", str(path), *more) == run.EXIT_FAILED_ROW
    document = json.loads(path.read_text())
    validate(document)
    assert document["summary"][0]["results"] is None
    (row,) = document["rows"]
    return row


@pytest.mark.parametrize("framework", IMPLEMENTATIONS)
def test_missing_framework_says_how_to_install_it(
    framework, tmp_path, monkeypatch, no_peak, capsys
):
    hide = f"import sys; sys.modules[{PACKAGES[framework]!r}] = None\n"
    use_worker(monkeypatch, f"{hide}from benchmarks import worker; worker.main()")
    row = failed_row(tmp_path, framework)
    assert row["status"] == "missing_framework"
    advice = f"pip install -c constraints.txt -e '.[{framework}]'"
    assert advice in row["error"]
    assert advice in capsys.readouterr().out


@needs_no_gpu
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
def test_worker_that_dies_is_a_row(code, words, tmp_path, monkeypatch, no_peak, capsys):
    use_worker(monkeypatch, code)
    row = failed_row(tmp_path)
    assert row["status"] == "error"
    assert words in row["error"]
    assert words in capsys.readouterr().out


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def is_running(process_id):
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def hanging(pid_file):
    """Return a worker that starts a child, writes its pid, and hangs in a phase."""
    return f"""
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))
print("benchmarks.worker: phase warm_up", file=sys.stderr, flush=True)
time.sleep(60)
"""


def test_worker_that_hangs_is_killed_with_its_children(tmp_path, monkeypatch, no_peak):
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
from benchmarks import launcher, run
launcher.WORKER_COMMAND = (sys.executable, "-c", {hanging(pid_file)!r})
launcher.measure_gemm_peak = lambda threads, time_limit: None
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
    assert [file.name for file in tmp_path.iterdir()] == ["pid"]


def test_step_that_is_wrong_gets_no_number(tmp_path, monkeypatch, no_peak, capsys):
    use_worker(
        monkeypatch,
        f"""
import dataclasses
from benchmarks import worker, workloads
honest = workloads.FRAMEWORKS[{QUICKEST!r}]
def create(*arguments):
    workload = honest.create(*arguments)
    def twice():
        workload.step()
        return workload.step()
    return dataclasses.replace(workload, step=twice)
workloads.FRAMEWORKS[{QUICKEST!r}] = dataclasses.replace(honest, create=create)
worker.main()
""",
    )
    row = failed_row(tmp_path)
    assert row["status"] == "check_failed"
    assert row["checks"]["equivalence"]["worst_array"]["name"] in row["error"]
    assert row["windows"] == []
    assert "img/s (95" not in capsys.readouterr().out


def plant(monkeypatch, **parts):
    """Put the NumPy reference in a framework's place, with parts of the timed workload replaced."""
    settings = {"platform": "cpu", "device": "cpu", "dtype": "float32", "threads": 1}
    truth = gate.truth(gate.gate_problem(SYSTEMS["dcgan64"]))

    def create(spec, *_):
        workload = workloads.Workload(
            step=lambda: truth.metrics,
            synchronize=lambda: 0.0,
            export_state=lambda: truth.arrays,
            import_state=lambda arrays: None,
            effective_settings=lambda: settings,
            peak_device_bytes=lambda: None,
        )
        timed = spec.width != gate.GATE_WIDTH
        return dataclasses.replace(workload, **parts) if timed else workload

    framework = workloads.Framework(lambda device, threads: None, create)
    monkeypatch.setitem(workloads.FRAMEWORKS, QUICKEST, framework)
    return worker.run(tiny_request())


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
    row_schema = {"$defs": SCHEMA["$defs"], "$ref": "#/$defs/row"}
    jsonschema.Draft202012Validator(row_schema).validate(row)


@pytest.mark.parametrize(("name", "value"), [("platform", "gpu"), ("dtype", "bfloat16")])
def test_other_settings_than_asked_for_are_an_error(name, value, monkeypatch):
    settings = {"platform": "cpu", "device": "cpu", "dtype": "float32", "threads": 1}
    row = plant(monkeypatch, effective_settings=lambda: settings | {name: value})
    assert row["status"] == "error"
    assert value in row["error"]


def test_a_framework_that_failed_is_not_run_again_and_the_others_are(monkeypatch, no_peak):
    seen = []

    def run_worker(request, time_limit):
        seen.append((request.framework, request.round))
        status = "timeout" if request.framework == "tf" else "oom"
        return worker.empty_row(request.framework, request.round) | {"status": status, "error": "x"}

    monkeypatch.setattr(launcher, "run_worker", run_worker)
    assert call("--rounds", "3", "--device", "cpu") == run.EXIT_FAILED_ROW
    assert sorted(seen) == [(name, 0) for name in sorted(IMPLEMENTATIONS)]


@pytest.mark.parametrize(("budget", "rounds"), [("0.1", 1), ("100", 3)])
def test_rounds_beyond_the_time_budget_are_left_out(budget, rounds, monkeypatch, no_peak):
    seen = []

    def run_worker(request, time_limit):
        seen.append(request.round)
        time.sleep(0.1)
        return plant(monkeypatch) | {"framework": request.framework, "round": request.round}

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


def test_auto_is_one_device_for_all_frameworks(monkeypatch):
    monkeypatch.setattr(host, "gpu_driver", lambda: "/dev/nvidia0")
    assert choose_device("auto") == ("gpu", "auto: found /dev/nvidia0")
    assert parse([]).batch_size == SYSTEMS["dcgan64"].batch_size
    monkeypatch.setattr(host, "gpu_driver", lambda: None)
    assert choose_device("auto")[0] == "cpu"
    assert choose_device("gpu")[0] == "gpu"


def test_request_survives_the_process_border():
    request = tiny_request()
    assert Request.from_json(request.to_json()) == request


def test_json_is_written_in_one_piece_or_not_at_all(tmp_path):
    path = tmp_path / "out.json"
    results.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        results.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]


def summary(name, median, low, high, rounds=2):
    rate = {"median": median, "interval_95": [low, high], "rounds": rounds}
    return {"framework": name, "results": {"images_per_second": rate}}


def test_verdict_is_certain_only_where_the_intervals_are_apart():
    fast, slow = summary("jax", 60.0, 58.0, 62.0), summary("tf", 50.0, 48.0, 52.0)
    assert report.verdict([slow, fast]).startswith("Fastest: jax at 60.0 img/s")
    assert "1.20x tf" in report.verdict([slow, fast])
    near = summary("pytorch", 59.0, 57.0, 61.0)
    assert report.verdict([near, fast]).startswith("No clear winner")
    once = summary("jax", 60.0, 58.0, 62.0, rounds=1)
    assert report.verdict([slow, once]).startswith("Not certain after one round")
    assert report.verdict([slow]).startswith("tf trains 50.0 img/s")
    failed = {"framework": "jax", "results": None}
    assert report.verdict([failed]).startswith("No verdict")
