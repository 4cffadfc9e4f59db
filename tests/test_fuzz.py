"""The fuzzer: it sees every kind of fault, it repeats itself, and a few inputs of each reader."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.apparatus.fuzz.faulty import FAULTS, FAULTY
from tests.apparatus.fuzz.parent import run_reader
from tests.apparatus.fuzz.reader import FAULT, READ, Outcome, draw_of
from tests.apparatus.fuzz.readers import READERS
from tests.tiers import one_in

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux tells it")

SEED = 20260
# A read of a framework's file takes tens of milliseconds, its import seconds.
COUNTS = {"torch": 40, "keras": 20, "orbax": 6, "tf-checkpoint": 20, "images": 60, "benchmark": 40}
NUMPY_ONLY = [name for name, reader in READERS.items() if not reader.needs]


@pytest.mark.parametrize("name", one_in(3, READERS))
def test_no_untrusted_input_is_a_fault(name: str) -> None:
    reader = READERS[name]
    if reader.missing:
        pytest.skip(f"{', '.join(reader.missing)} not installed")
    summary = run_reader(reader, SEED, range(COUNTS.get(name, 100)), lambda outcome: None)
    again = f"python -m tests.apparatus.fuzz --reader {name} --seed {SEED} --case"
    assert not summary.faults, [f"{again} {f.index}: {f.lines}" for f in summary.faults]
    assert summary.counts[READ] > 0
    assert summary.counts["refused"] > summary.counts[READ] / 10


@pytest.mark.parametrize(
    ("name", "seed", "case"),
    [("benchmark", 1, 167), ("orbax", 5, 139), ("images", 7, 226)],
    ids=["a list as a row's name", "a warning of orbax", "a warning of Pillow"],
)
def test_what_a_long_run_found_is_fixed(name: str, seed: int, case: int) -> None:
    if READERS[name].missing:
        pytest.skip(f"{', '.join(READERS[name].missing)} not installed")
    summary = run_reader(READERS[name], seed, [case], lambda outcome: None)
    assert not summary.faults, summary.faults[0].lines


def test_every_kind_of_fault_is_seen() -> None:
    outcomes: list[Outcome] = []
    run_reader(FAULTY, SEED, range(len(FAULTS) + 1), outcomes.append)
    assert outcomes[0].verdict == outcomes[-1].verdict == READ
    found = {FAULTS[o.index]: o.lines[0] for o in outcomes[:-1] if o.verdict == FAULT}
    assert list(found) == list(FAULTS[1:])
    expected = {
        "traceback": "KeyError: not an error of this reader",
        "no name": "a message that does not name the file",
        "two lines": "a message with the characters ['\\n']",
        "long": "a message of 4000 characters",
        "wrong": "AssertionError: not an error of this reader",
        "code": "code ran: os.system",
        "payload": "code ran: a payload of the file",
        "warning": "a warning: RuntimeWarning: odd numbers",
        "crash": "crash, exit code -6",
        "hang": "hang (limit 1 s)",
    }
    assert {k: v for k, v in expected.items() if not found[k].startswith(v)} == {}
    assert "MiB of memory, bound 32 MiB" in found["memory"]


@pytest.mark.parametrize("name", NUMPY_ONLY)
def test_an_input_can_be_made_again(tmp_path: Path, name: str) -> None:
    made = []
    for turn in ("first", "second"):
        for index in range(8):
            folder = tmp_path / turn / str(index)
            folder.mkdir(parents=True)
            case = READERS[name].make(draw_of(name, SEED, index), folder)
            files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
            contents = [(str(p.relative_to(folder)), p.read_bytes()) for p in files]
            made.append((case.label, str(case.path.relative_to(folder)), contents))
    assert made[:8] == made[8:]
    assert len({str(case) for case in made}) == 8


@pytest.mark.slow
def test_the_command_reports_and_keeps_an_input(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.apparatus.fuzz", "--reader", "idx", "--seed", "3"]
    log = tmp_path / "log"
    done = subprocess.run(
        [*command, "--count", "3", "--log", log], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].split()[:2] == ["idx", "3"]
    assert len(log.read_text().splitlines()) == 5
    kept = subprocess.run(
        [*command, "--case", "2", "--keep", tmp_path / "kept"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert kept.returncode == 0
    assert "kept" in kept.stdout
    assert len(list((tmp_path / "kept").iterdir())) == 1
