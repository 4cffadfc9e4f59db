"""The benchmark on several devices: what it accepts, what it writes, what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import compare, scaling_model
from benchmarks.document import stored as stored_document
from benchmarks.plan import configuration
from benchmarks.plan.configuration import Request
from benchmarks.plan.costs import exchanges_of_step
from benchmarks.plan.options import parse
from benchmarks.show import tables
from benchmarks.worker import main as worker
from benchmarks.worker import measure
from shared.files.errors import InputError
from shared.spec import SYSTEMS
from tests import ROOT
from tests.benchmarks.documents import make_document, validate, write
from tests.benchmarks.stand_ins import INSTALLED, TINY, call, is_running
from tests.tiers import one_in

CPU = ["--device", "cpu", "--batch-size", "8"]

needs_pytorch = pytest.mark.skipif("pytorch" not in INSTALLED, reason="PyTorch is not installed")


# --- what is asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--devices", "0"], "--devices must be at least 1, received 0"),
        (
            ["--devices", "1", "4", "--batch-size", "8", "6"],
            "--batch-size 6 is no multiple of --devices 4",
        ),
        (["--devices", "3", "--batch-size", "9"], "--devices must divide 8"),
        (["--devices", "2", "--baselines"], "put 1 among --devices, received 2"),
    ],
    ids=str,
)
def test_devices_that_cannot_be_are_one_line(arguments, words, capsys):
    assert call(*CPU, *arguments) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_every_number_of_devices_is_a_configuration_and_baselines_are_on_one():
    plan = parse([*CPU, "--threads", "1", "--devices", "1", "2", "--baselines"])
    found = [(c.devices, c.framework, c.implementation) for c in plan.configurations]
    frameworks = ("pytorch", "tf", "jax")
    alone = [(1, name, kind) for name in frameworks for kind in ("ours", "baseline")]
    assert found == [*alone, *[(2, name, "ours") for name in frameworks]]


def test_the_id_and_the_label_say_devices_only_where_there_are_several():
    plan = parse([*CPU, "--threads", "1", "--framework", "jax", "--devices", "1", "2"])
    one, two = plan.configurations
    assert one.id == "jax/ours/float32/auto/batch8/threads1/input-device"
    assert two.id == "jax/ours/float32/auto/batch8/threads1/input-device/devices2"
    assert configuration.labels([one, two]) == ["jax", "jax 2 devices"]
    assert configuration.labels([two]) == ["jax"]
    request = Request(plan, two, 0, 1.0)
    assert configuration.Request.from_json(request.to_json()) == request


@pytest.mark.parametrize(("threads", "devices", "each"), [(2, 2, 1), (8, 2, 4), (1, 2, 1)])
def test_threads_are_divided_among_processes(threads, devices, each):
    asked = configuration.Configuration(
        "pytorch", "ours", "float32", None, 8, threads, "device", devices=devices
    )
    assert asked.threads_of_process == each


# --- what is written -----------------------------------------------------------------------------


def of_devices(asked, number):
    if asked.devices == 1:
        return [100.0, 100.0]
    return {"rates": [80.0, 80.0], "communication_ms": 25.0}


def test_a_document_keeps_devices_and_their_communication_apart(capsys):
    found = make_document([*CPU, "--devices", "1", "2", "--framework", "jax"], of_devices)
    assert found["requested"]["devices"] == [1, 2]
    assert [c["devices"] for c in found["configurations"]] == [1, 2]
    assert [group["settings"]["devices"] for group in found["groups"]] == [1, 2]
    assert "2 devices" in tables.group_title(found["groups"][1])
    assert "devices" not in tables.group_title(found["groups"][0])
    one, two = (summary["results"] for summary in found["summary"])
    assert "communication_ms" not in one
    assert two["communication_ms"] == 25.0

    tables.show(found, tables.make_console())
    # A step of 8 images at 80 a second is 100 ms.
    words = "jax 2 devices: communication 25.0 % of a step (25.0 ms, measured alone)"
    assert words in capsys.readouterr().out


def test_documents_of_before_are_read_and_compared(tmp_path, capsys):
    found = make_document([*CPU, "--framework", "jax"], lambda asked, number: [100.0, 100.0])
    new = write(tmp_path / "new.json", found)
    del found["requested"]["devices"]
    for part in (*found["configurations"], *(group["settings"] for group in found["groups"])):
        del part["devices"]
    validate(found)
    old = write(tmp_path / "old.json", found)
    assert tables.group_title(found["groups"][0]) == "float32, batch 8, cpu, threads 1"
    assert [line["label"] for line in tables.group_lines(found, found["groups"][0])] == ["jax"]
    assert compare.main([old, new]) == 0
    assert "jax" in capsys.readouterr().out


@pytest.mark.parametrize("damaged", [0, "2", None, 1.5, True])
def test_a_damaged_number_of_devices_is_one_line(damaged, tmp_path):
    found = make_document([*CPU, "--framework", "jax"], lambda asked, number: [100.0, 100.0])
    found["configurations"][0]["devices"] = damaged
    path = Path(write(tmp_path / "damaged.json", found))
    with pytest.raises(InputError, match=r"configurations\[0\]\.devices: "):
        stored_document.load(path)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=str)
def test_stored_documents_follow_the_schema(path):
    found = json.loads(path.read_text())
    if found.get("schema_version") != 2:
        pytest.skip(f"{path.name} has another version")
    validate(found)


# --- the exchanges of a step ---------------------------------------------------------------------


def test_the_exchanges_of_a_step_are_those_of_its_passes():
    spec = SYSTEMS["dcgan64"].replace(width=8)
    found = exchanges_of_step(spec)
    # G: BN on 64, 32, 16, 8 channels; D: on 16, 32, 64. Of each, mean and variance.
    generator, discriminator = [128, 64, 32, 16], [32, 64, 128]
    # One pass of G, three of D: real and fake images, and fake ones again in G's update.
    passes = sorted([*generator, *discriminator * 3])
    assert sorted(found.gathered) == passes
    assert sorted(found.reduced_statistics) == passes
    weights = [spec.parameter_count("generator"), spec.parameter_count("discriminator")]
    assert found.reduced_gradients == weights


def test_more_updates_and_new_latents_are_more_exchanges():
    spec = SYSTEMS["dcgan64"].replace(discriminator_steps=2, generator_batch="new_latents")
    found = exchanges_of_step(spec)
    # 4 BN layers of G in three forward passes and one backward; 3 of D in five of each.
    assert len(found.gathered) == 4 * 3 + 3 * 5
    assert len(found.reduced_statistics) == 4 + 3 * 5
    assert len(found.reduced_gradients) == 1 + 2


def test_the_time_of_the_exchanges_is_a_median_without_the_first():
    slow = iter([0.2, 0.2])
    found = measure.communication_ms(lambda: time.sleep(next(slow, 0.005)))
    assert 5.0 <= found < 50.0


@pytest.mark.slow
@needs_pytorch
def test_pytorch_exchanges_as_often_as_is_counted():
    """The numbers of every collective of a step, in a process of its own, as torch is told."""
    code = """
import json, sys
import torch.distributed as dist
from benchmarks.plan.costs import exchanges_of_step
from benchmarks.worker import pytorch_workload
from benchmarks.plan.configuration import Request
from benchmarks.plan.options import parse
plan = parse(sys.argv[1:])
request = Request(plan, plan.configurations[0], 0, 1.0)
pytorch_workload.configure(request)
workload = pytorch_workload.create(request.spec, 0, request)
workload.step()
gathered, reduced = [], []
gather, reduce = dist.all_gather, dist.all_reduce
def counted_gather(parts, own):
    gathered.append(own.numel())
    return gather(parts, own)
def counted_reduce(own):
    reduced.append(own.numel())
    return reduce(own)
dist.all_gather, dist.all_reduce = counted_gather, counted_reduce
workload.step()
sizes = exchanges_of_step(request.spec)
print(json.dumps([gathered, reduced, sizes.gathered, sizes.reduced_statistics]))
"""
    arguments = [*CPU, "--framework", "pytorch", "--devices", "2", "--width", "4"]
    command = [sys.executable, "-c", code, *arguments, "--threads", "1"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    gathered, reduced, forward, backward = json.loads(finished.stdout)
    assert sorted(gathered) == sorted(forward)
    # The four losses last; the gradients of the weights are DistributedDataParallel's own calls.
    assert sorted(reduced) == sorted([*backward, 4])


# --- the model of a step -------------------------------------------------------------------------


def test_the_table_of_the_scaling_model_is_its_formula(capsys):
    arguments = ["--images", "100", "--tflops", "1", "--bandwidth", "1", "--latency", "1"]
    assert scaling_model.main([*arguments, "--devices", "1", "4"]) == 0
    first, *_, one, four = capsys.readouterr().out.splitlines()
    gradients = 4 * sum(
        SYSTEMS["dcgan64"].parameter_count(n) for n in ("generator", "discriminator")
    )
    assert first.startswith(f"gradients: {gradients:,} bytes; batch norm: 26 exchanges, ")
    arithmetic, ring, hops = 100 * 2.274623488, 2 * 3 / 4 * gradients / 1e6, 26 * 2 * 1e-3
    assert (
        one == f"| 1 | 100 | {arithmetic:.2f} ms | 0.00 ms | 0.00 ms | {arithmetic:.2f} ms | 100% |"
    )
    step = arithmetic + ring + hops
    terms = " | ".join(f"{term:.2f} ms" for term in (arithmetic, ring, hops, step))
    assert four == f"| 4 | 400 | {terms} | {arithmetic / step:.0%} |"


@pytest.mark.parametrize(
    "arguments", [["--images", "0.4"], ["--devices", "0"], ["--tflops", "nan"]]
)
def test_what_the_scaling_model_cannot_take_is_one_line(arguments, capsys):
    with pytest.raises(SystemExit):
        scaling_model.main(arguments)
    assert capsys.readouterr().err.count("\n") == 1


# --- real runs -----------------------------------------------------------------------------------


@pytest.mark.slow
@needs_pytorch
def test_one_and_two_devices_are_timed_after_the_gate(tmp_path, capsys):
    path = tmp_path / "out.json"
    arguments = [*CPU, "--framework", "pytorch", "--width", "8", "--devices", "1", "2"]
    arguments += ["--threads", "1", "--rounds", "1", "--steps", "5", "--time-budget", "5"]
    assert call(*arguments, "--json", str(path)) == 0, capsys.readouterr()
    found = json.loads(path.read_text())
    validate(found)
    rows = {row["configuration"]: row for row in found["rows"]}
    (one, two) = (rows[c["id"]] for c in found["configurations"])
    for row in (one, two):
        assert row["status"] == "ok"
        assert row["checks"]["equivalence"]["passed"]
        assert row["checks"]["equivalence"]["worst_array"]["difference"] > 0
    assert "communication_ms" not in one
    assert 0 < two["communication_ms"] < sum(two["latency_ms"])
    # Two processes, each of which has a framework in it.
    assert two["memory"]["peak_resident_bytes"] > 1.5 * one["memory"]["peak_resident_bytes"]
    assert "communication" in capsys.readouterr().out


@pytest.mark.slow
@needs_pytorch
def test_a_follower_that_takes_wrong_rows_gets_no_number(tmp_path, monkeypatch):
    """Device 1 trains on the rows of device 0: half of the batch is never seen."""
    (tmp_path / "sitecustomize.py").write_text(
        """
import sys
if "--multiprocessing-fork" in sys.orig_argv:
    from shared.spec import compute
    honest = compute.rows_of_replica
    compute.rows_of_replica = lambda a, batches, devices, replica: honest(a, batches, devices, 0)
"""
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    plan = parse([*TINY, "--framework", "pytorch", "--devices", "2"])
    row = worker.run_worker(Request(plan, plan.configurations[0], 0, 1.0), 120.0)
    assert row["status"] == "check_failed", row
    assert "does not agree with the NumPy reference" in row["error"]


def followers_of(process_id):
    """Return the ids of a process's children that follow it, once they take part."""
    found = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    lines = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in found}
    return [child for child, line in lines.items() if b"--multiprocessing-fork" in line]


@needs_pytorch
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for the processes")
@pytest.mark.parametrize("phase", one_in(2, ["import", "warm_up"]))
def test_a_worker_that_is_killed_leaves_no_process(phase, tmp_path):
    plan = parse([*TINY, "--framework", "pytorch", "--devices", "2", "--time-budget", "60"])
    request = Request(plan, plan.configurations[0], 0, 60.0)
    with open(tmp_path / "stderr", "w") as errors:
        process = subprocess.Popen(
            [*worker.WORKER_COMMAND, request.to_json()],
            cwd=ROOT,
            env=worker.worker_environment("cpu", 1),
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    deadline = time.monotonic() + 60
    followers = []
    while time.monotonic() < deadline and not (
        followers and f"phase {phase}" in (tmp_path / "stderr").read_text()
    ):
        assert process.poll() is None, (tmp_path / "stderr").read_text()
        followers = followers_of(process.pid)
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)  # the worker alone, as the kernel does for memory
    process.wait()
    (follower,) = followers
    deadline = time.monotonic() + 20
    while is_running(follower) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(follower)
