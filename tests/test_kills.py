"""Runs that are killed and resumed end as the unbroken one: the short version."""

import random
import shutil

import pytest

from shared.files.checkpoint import read_checkpoint, write_checkpoint
from tests.apparatus.killed_run import Victim, differences_from_whole
from tests.apparatus.kills import kill_rounds, limited_file_size

SHORT = 60  # steps


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    pytest.importorskip("torch")
    return Victim("pytorch", tmp_path_factory.mktemp("kills"), steps=SHORT)


@pytest.mark.slow
def test_three_kills(victim):
    counts = kill_rounds(victim, 3, random.Random(1))
    assert counts["kills"] == 3
    assert counts["runs"] >= 1


@pytest.mark.slow
def test_a_checkpoint_that_the_disk_refuses(victim):
    said = limited_file_size(victim)
    assert said.startswith("python -m pytorch_impl.train: error: ")
    assert "step_000015.safetensors cannot be written: File too large; what was saved" in said
    assert said.endswith("is good: put that right and go on with --resume")


@pytest.mark.slow
def test_every_difference_is_found(victim, tmp_path):
    assert min(victim.seconds) > 0  # makes the unbroken run
    out = tmp_path / "run"

    def differences(meddle, keep="all"):
        shutil.copytree(victim.whole, out, dirs_exist_ok=True)
        meddle()
        found = differences_from_whole(victim.whole, out, keep)
        shutil.rmtree(out)
        return found

    last = out / "checkpoints" / f"step_{SHORT:06d}.safetensors"

    def change_one_bit():
        checkpoint = read_checkpoint(last)
        next(iter(checkpoint.arrays.values())).view("uint32").flat[0] ^= 1
        write_checkpoint(last, checkpoint.arrays, checkpoint.spec, progress=checkpoint.progress)

    def append(name, text):
        return lambda: (out / name).write_text((out / name).read_text() + text)

    assert differences(lambda: None) == []
    assert "differs" in differences(change_one_bit)[0]
    assert differences(append("losses.csv", "61,0,0,0,0,1\n")) == ["losses.csv differs"]
    assert differences(append("quality.csv", "0,1.0\n")) == ["quality.csv differs"]
    assert "checkpoints" in differences(last.unlink)[0]
    assert "checkpoints" in differences(lambda: None, keep="2")[0]
    grid = out / "samples" / f"step_{SHORT:06d}.png"
    assert differences(lambda: grid.write_bytes(b"")) == [f"{grid.name} differs"]
    half = out / "samples" / ".step_000025.png.1.tmp"
    assert differences(lambda: half.write_bytes(b"")) == [f"{half} is left"]
