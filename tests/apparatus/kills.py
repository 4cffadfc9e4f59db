"""Training runs that are killed again and again, and end as if nothing had happened.

    python -m tests.apparatus.kills --framework all --kills 30 --seed 0 --log kills.jsonl

A small run is made once without a break. Then it is started, killed with SIGKILL, resumed, killed …
until it ends, and again from the start until so many kills are made. By a coin, a kill waits for
a checkpoint that is being written or comes at any moment of a session, its start too. What the
killed run leaves must be the unbroken run's to the last bit: losses.csv but for the seconds,
quality.csv, every checkpoint that is kept, the last grid of samples. At last the disk is full when
a checkpoint is due. Linux only.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.files.checkpoint import read_checkpoint
from shared.interface import IMPLEMENTATIONS, canonical_name
from tests.apparatus.killed_run import POLL, Victim, differences_from_whole, ended, names

AIMED_SHARE = 1 / 2


# --- killing ---------------------------------------------------------------------------------


def kill_rounds(victim: Victim, kills: int, dice: random.Random) -> dict[str, int]:
    """Kill runs until so many kills are made; compare each; return the counts."""
    counts = {"kills": 0, "aimed": 0, "torn": 0, "before the first checkpoint": 0, "runs": 0}
    while counts["kills"] < kills:
        keep = ("all", "2")[counts["runs"] % 2]
        out = victim.work / f"killed-{counts['runs']}"
        while (session := victim.start(out, keep)) and counts["kills"] < kills:
            if aimed := dice.random() < AIMED_SHARE:
                wait_for_writing(session, out, dice)
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    session.wait(dice.uniform(0, victim.seconds_left(out)))
            if session.poll() is not None:
                break
            session.kill()
            session.communicate()
            counts["kills"] += 1
            counts["aimed"] += aimed
            left = after_kill(out, keep, counts)
            victim.log({"framework": victim.framework, "aimed": aimed, **left})
        ended(session, expected=0)
        if differences := differences_from_whole(victim.whole, out, keep):
            raise AssertionError(f"{victim.framework}, {out}: {'; '.join(differences)}")
        counts["runs"] += 1
        shutil.rmtree(out)
    return counts


def wait_for_writing(session: subprocess.Popen, out: Path, dice: random.Random) -> None:
    """Wait until one of the next checkpoints is being written, or has just been."""
    folder = out / "checkpoints"
    to_come = dice.randint(1, 8)
    known = set(names(folder))
    patience = dice.choice((0, 0, 0.001, 0.003))  # the later ones meet the rename and the pruning
    while session.poll() is None:
        new = set(names(folder)) - known
        known |= new
        to_come -= sum(".tmp" in name or name.endswith("safetensors") for name in new)
        if to_come <= 0:
            time.sleep(patience)
            return
        time.sleep(POLL)


def after_kill(out: Path, keep: str, counts: dict[str, int]) -> dict[str, Any]:
    """Check that no checkpoint is half and none too few; count and return what a kill has left."""
    checkpoints = sorted(n for n in names(out / "checkpoints") if n.endswith(".safetensors"))
    for name in checkpoints:
        read_checkpoint(out / "checkpoints" / name)
    last = checkpoints[-1] if checkpoints else None
    made = int(last[5:11]) // 5 if last else 0
    assert len(checkpoints) >= (made if keep == "all" else min(made, int(keep))), checkpoints
    torn = [path.name for path in out.rglob(".*.tmp")] if out.exists() else []
    counts["torn"] += bool(torn)
    counts["before the first checkpoint"] += not checkpoints
    return {"last checkpoint": last, "torn": torn}


# --- a full disk -----------------------------------------------------------------------------


def limited_file_size(victim: Victim) -> str:
    """Let no file grow as large as a checkpoint after the first ones; returns what was said."""
    out = victim.work / "limited"
    whole_steps, victim.steps = victim.steps, 12
    ended(victim.start(out, "all"), expected=0)
    victim.steps = whole_steps
    size = (out / "checkpoints" / "step_000012.safetensors").stat().st_size
    said = ended(victim.start(out, "all", file_limit=size // 2), expected=2)
    check_full_disk(out, said, last="step_000012.safetensors")
    (out / "checkpoints" / "step_000012.safetensors").unlink()  # no part of the unbroken run
    ended(victim.start(out, "all"), expected=0)
    assert victim.seconds, "the unbroken run"
    assert not (found := differences_from_whole(victim.whole, out, "all")), found
    return said


def full_disk(victim: Victim) -> str:
    """Fill a small file system by checkpoints, then make it larger; returns what was said."""
    disk = victim.work / "disk"
    disk.mkdir()
    assert victim.seconds, "the unbroken run"
    size = max(path.stat().st_size for path in (victim.whole / "checkpoints").iterdir())
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(disk), "-o"]
    subprocess.run([*mount, f"size={9 * size // 2 + 100_000}"], check=True)
    try:
        out = disk / "run"
        said = ended(victim.start(out, "all"), expected=2)
        made = sorted(names(out / "checkpoints"))
        assert 0 < len(made) < 10, made
        check_full_disk(out, said, last=made[-1])
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        ended(victim.start(out, "all"), expected=0)
        assert not (found := differences_from_whole(victim.whole, out, "all")), found
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    return said


def check_full_disk(out: Path, said: str, last: str) -> None:
    """The file is named; the last good checkpoint is there; nothing is half written."""
    assert str(out / "checkpoints" / "step_") in said, said
    assert "cannot be written" in said, said
    checkpoints = sorted(names(out / "checkpoints"))
    assert checkpoints[-1] == last, checkpoints
    for name in checkpoints:
        read_checkpoint(out / "checkpoints" / name)
    assert not list(out.rglob("*.tmp")), "a half file is left"


# --- the command -----------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.apparatus.kills", description=__doc__.split("\n")[0]
    )
    names = {"type": canonical_name, "choices": (*IMPLEMENTATIONS, "all")}
    parser.add_argument("--framework", **names, default="pytorch")
    parser.add_argument("--kills", type=int, default=30, help="of each framework (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--log", type=Path, help="a line of JSON for every kill")
    arguments = parser.parse_args(argv)
    chosen = IMPLEMENTATIONS if arguments.framework == "all" else (arguments.framework,)

    def log(entry: dict[str, Any]) -> None:
        if arguments.log:
            with open(arguments.log, "a") as file:
                file.write(json.dumps(entry) + "\n")

    for framework in chosen:
        with tempfile.TemporaryDirectory(prefix="kills-") as work:
            victim = Victim(framework, Path(work), log=log)
            dice = random.Random(f"{arguments.seed} {framework}")
            counts = kill_rounds(victim, arguments.kills, dice)
            listed = ", ".join(f"{count} {name}" for name, count in counts.items())
            print(f"{framework:<8} {listed}; all {counts['runs']} as unbroken", flush=True)
            fill = full_disk if os.geteuid() == 0 else limited_file_size
            print(f"{framework:<8} {fill(victim)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
