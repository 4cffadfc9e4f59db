"""Training commands on several devices: resumed on other numbers of them, and when one fails."""

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from shared.files.checkpoint import read_checkpoint
from shared.interface import IMPLEMENTATIONS, MissingFrameworkError, load_implementation
from tests import ROOT

pytestmark = pytest.mark.slow
SMALL = ("--device", "cpu", "--system", "mlp28", "--width", "8", "--batch-size", "8")
ENDLESS = ("--steps", "1000000", "--checkpoint-every", "20", "--sample-every", "1000000")
# Twelve steps of sums in another order: measured 1e-15.
BOUND = 1e-12


def command(framework: str, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", f"{framework}_impl.train", *SMALL, *options, "--out", str(out)]


def run(framework: str, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(framework, out, *options), cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def train_alone(framework: str, out: Path, *options: str) -> None:
    """Train on one device, in this process."""
    main = importlib.import_module(f"{framework}_impl.train").main
    assert main([*SMALL, *options, "--out", str(out)]) == 0


def require(*frameworks: str) -> None:
    for name in frameworks:
        try:
            load_implementation(name)
        except MissingFrameworkError as error:
            pytest.skip(str(error))


def test_a_run_goes_on_with_another_number_of_devices_in_another_framework(tmp_path):
    require(*IMPLEMENTATIONS)
    moving, whole = tmp_path / "moving", tmp_path / "whole"
    for framework, devices, steps in (("pytorch", 2, 4), ("jax", 4, 8), ("tf", 2, 12)):
        resume = ["--resume"] if steps > 4 else []
        options = ["--dtype", "float64", "--devices", str(devices), "--steps", str(steps), *resume]
        result = run(framework, moving, *options)
        assert result.returncode == 0, result.stderr
    train_alone("pytorch", whole, "--dtype", "float64", "--steps", "12")
    name = "checkpoints/step_000012.safetensors"
    found, truth = read_checkpoint(moving / name).arrays, read_checkpoint(whole / name).arrays
    assert max(np.abs(found[n] - truth[n]).max() for n in truth) <= BOUND


@pytest.mark.parametrize("framework", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--devices", "3"),
            "error: --batch-size 8 is no multiple of --devices 3$",
        ),
        (
            ("--device", "gpu", "--devices", "8"),
            r"--devices 8 was asked for, but \w+ sees \d GPUs?; use --devices \d.*"
            "or --device cpu$",
        ),
    ],
    ids=["a batch that cannot be divided", "more GPUs than there are"],
)
def test_devices_that_cannot_be_are_reported_in_one_line(
    framework, options, message, tmp_path, capsys
):
    require(framework)
    out = tmp_path / "run"
    main = importlib.import_module(f"{framework}_impl.train").main
    assert main([*SMALL, *options, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error.splitlines()[-1])
    assert "Traceback" not in error
    assert not out.exists()


def begin(out: Path, *options: str) -> subprocess.Popen[str]:
    """Start an endless run of PyTorch on two devices and wait for its first checkpoint."""
    process = subprocess.Popen(
        command("pytorch", out, "--devices", "2", *ENDLESS, *options),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: any((out / "checkpoints").glob("step_*")), 90.0, process)
    return process


def wait_for(condition, seconds: float, process: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            pytest.fail(f"the run ended with {process.returncode}: {process.stderr.read()}")
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def is_asked_to_end(number: int) -> bool:
    """Whether SIGTERM waits for a process that is stopped."""
    status = Path(f"/proc/{number}/status").read_text("ascii")
    return bool(int(status.split("ShdPnd:")[1].split()[0], 16) >> signal.SIGTERM - 1 & 1)


def processes_of(out: Path) -> dict[int, int]:
    """Return every process whose command line names the folder, with its parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes().split(b"\0")
            status = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if str(out).encode() in line and status[0] != "Z":
            found[int(entry.name)] = int(status[1])
    return found


def end_of(process: subprocess.Popen[str], out: Path, seconds: float) -> tuple[int, str]:
    """Return how the run ended, within so many seconds, and leave no process behind."""
    try:
        _, errors = process.communicate(timeout=seconds)
        wait_for(lambda: not processes_of(out), 5.0)
    finally:
        for number in processes_of(out):
            os.kill(number, signal.SIGKILL)
    return process.returncode, errors


def test_a_device_that_is_killed_ends_the_run_and_loses_nothing(tmp_path):
    require("pytorch")
    process = begin(tmp_path)
    workers = sorted(n for n, parent in processes_of(tmp_path).items() if parent == process.pid)
    os.kill(workers[-1], signal.SIGKILL)
    code, errors = end_of(process, tmp_path, 20.0)
    assert code == 2
    assert "was killed by signal 9, and the others were stopped" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    last = max((tmp_path / "checkpoints").glob("step_*"))
    done = read_checkpoint(last).progress["step"]
    resumed = run("pytorch", tmp_path, "--steps", str(done + 3), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert read_checkpoint(last.with_name(f"step_{done + 3:06d}.safetensors")).progress["step"]


def test_a_device_that_hangs_ends_the_run_after_the_wait_limit(tmp_path):
    require("pytorch")
    process = begin(tmp_path, "--wait-limit", "2")
    workers = sorted(n for n, parent in processes_of(tmp_path).items() if parent == process.pid)
    os.kill(workers[-1], signal.SIGSTOP)
    # torchrun asks a process to end and kills it 30 s later, for which this test does not wait.
    try:
        wait_for(lambda: is_asked_to_end(workers[-1]), 30.0)
    finally:
        os.kill(workers[-1], signal.SIGKILL)
        code, errors = end_of(process, tmp_path, 10.0)
    assert code == 2
    assert "has waited for another one longer than --wait-limit" in errors.splitlines()[-1]


def test_the_devices_end_with_the_command_that_started_them(tmp_path):
    require("pytorch")
    process = begin(tmp_path)
    process.kill()
    code, _ = end_of(process, tmp_path, 10.0)
    assert code == -signal.SIGKILL


def test_a_second_run_is_refused_and_an_interrupt_leaves_a_checkpoint(tmp_path):
    require("pytorch")
    process = begin(tmp_path)
    first = processes_of(tmp_path)
    try:
        for number in first:  # which would compute all the while
            os.kill(number, signal.SIGSTOP)
        second = run("pytorch", tmp_path, *ENDLESS, "--devices", "2", "--resume")
        assert second.returncode == 2
        assert "another process is training into --out" in second.stderr.splitlines()[-1]
        assert process.poll() is None
    finally:
        for number in first:
            os.kill(number, signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        code, errors = end_of(process, tmp_path, 30.0)
    assert code == 130
    assert "go on with --resume" in errors.splitlines()[-1]
