"""A small run that `kills` kills, and the comparison with one that nobody killed."""

import functools
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shared.files.checkpoint import read_checkpoint
from tests import ROOT

STEPS = 200  # of the unbroken run; a checkpoint every five of them
POLL = 0.0005  # seconds between two looks for a checkpoint that is being written
LIMIT = 900.0  # seconds that one session may take on a machine that is busy with other things
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
    "JAX_PLATFORMS": "cpu",
}


@dataclass
class Victim:
    """A small run of one framework, `whole` without a break, and the folder that holds it all."""

    framework: str
    work: Path
    steps: int = STEPS
    options: Sequence[str] = ("--system", "conv28", "--width", "4", "--batch-size", "4")
    log: Callable[[dict[str, Any]], None] = lambda entry: None
    whole: Path = field(init=False)

    def __post_init__(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        self.whole = self.work / "whole"
        pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1), dtype=np.uint8)
        np.savez(self.work / "images.npz", images=pixels)

    def start(self, out: Path, keep: str, *, file_limit: int | None = None) -> subprocess.Popen:
        """Start a session, which resumes if there is anything to resume."""
        counts = ("--steps", self.steps, "--checkpoint-every", 5, "--sample-every", 25)
        begun = ("--resume",) if (out / "samples").exists() else ()
        command = [
            *(sys.executable, "-m", f"{self.framework}_impl.train", *self.options, *counts),
            *("--data", self.work / "images.npz", "--keep-checkpoints", keep),
            *("--out", out, *begun),
        ]
        session = subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            env={**os.environ, **ONE_THREAD},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if file_limit is not None:
            # From here, while it imports: a preexec_fn would fork, of which JAX in a test warns.
            resource.prlimit(session.pid, resource.RLIMIT_FSIZE, (file_limit, file_limit))
        return session

    @functools.cached_property
    def seconds(self) -> tuple[float, float]:
        """Make the unbroken run; the seconds before its first step and those of the rest."""
        start = time.monotonic()
        session = self.start(self.whole, "all")
        while not names(self.whole / "samples") and session.poll() is None:
            time.sleep(POLL)
        ready = time.monotonic()
        ended(session, expected=0)
        return ready - start, time.monotonic() - ready

    def seconds_left(self, out: Path) -> float:
        """Return what the next session of a run is likely to take."""
        made = [int(n[5:11]) for n in names(out / "checkpoints") if n.endswith(".safetensors")]
        before, rest = self.seconds
        return before + rest * (1 - max(made, default=0) / self.steps)


def ended(session: subprocess.Popen, expected: int) -> str:
    """Wait for the end of a session; return the one line of an error, "" where none is expected."""
    _, errors = session.communicate(timeout=LIMIT)
    # TensorFlow logs a word of its own before anybody can ask it not to.
    said = [line for line in errors.splitlines() if line.startswith("python -m")]
    if (session.returncode, len(said)) != (expected, bool(expected)) or "Traceback" in errors:
        raise AssertionError(f"expected exit code {expected}, got {session.returncode}: {errors}")
    return "".join(said)


def names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


# --- comparing -------------------------------------------------------------------------------


def differences_from_whole(whole: Path, out: Path, keep: str) -> list[str]:
    """Return in what a run is not the unbroken one, nothing if it is that to the last bit."""
    found = []
    if rows(whole / "losses.csv", -1) != rows(out / "losses.csv", -1):
        found.append("losses.csv differs")
    if rows(whole / "quality.csv") != rows(out / "quality.csv"):
        found.append("quality.csv differs")
    made = sorted(names(whole / "checkpoints"))
    expected = made if keep == "all" else made[-int(keep) :]
    if (kept := sorted(names(out / "checkpoints"))) != expected:
        return [*found, f"checkpoints {kept} instead of {expected}"]
    for name in expected:
        one, other = (read_checkpoint(folder / "checkpoints" / name) for folder in (whole, out))
        if one.progress != other.progress:
            found.append(f"progress of {name} differs")
        found += [
            f"{array} of {name} differs"
            for array in one.arrays
            if one.arrays[array].tobytes() != other.arrays[array].tobytes()
        ]
    last = max(names(whole / "samples"))
    if (whole / "samples" / last).read_bytes() != (out / "samples" / last).read_bytes():
        found.append(f"{last} differs")
    found += [f"{path} is left" for path in out.rglob("*.tmp")]
    return found


def rows(table: Path, end: int | None = None) -> list[list[str]]:
    return [line.split(",")[:end] for line in table.read_text().splitlines()]
