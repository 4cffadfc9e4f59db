"""Which checkpoints stay, what killed writers leave, and resuming before the first checkpoint."""

import json

import numpy as np
import pytest

from shared.files.checkpoint import read_checkpoint, write_checkpoint
from shared.run import training as training_run
from shared.run.command import run_training
from shared.run.options import ALL_CHECKPOINTS, KEEP_CHECKPOINTS
from tests import exit_code
from tests.run.stand_in_run import (
    KERNEL,
    fit,
    loss_rows,
    names,
    stop_at,
)

pytestmark = pytest.mark.usefixtures("quick_sample_quality")


def kept(options):
    return [int(name[5:11]) for name in names(options.out / "checkpoints")]


# --- how many stay ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "expected"),
    [(1, [25]), (2, [24, 25]), (3, [20, 24, 25]), (ALL_CHECKPOINTS, [4, 8, 12, 16, 20, 24, 25])],
)
def test_the_newest_checkpoints_stay(make_options, keep, expected):
    fit(make_options(checkpoint_every=4, keep_checkpoints=keep))
    assert kept(make_options()) == expected


def test_three_stay_by_default(make_options):
    fit(make_options(checkpoint_every=4))
    assert kept(make_options()) == [20, 24, 25]


def test_an_old_one_goes_only_when_the_new_one_is_written(make_options, monkeypatch):
    seen = []

    def write(path, *arguments, **settings):
        seen.append(kept(make_options()))
        write_checkpoint(path, *arguments, **settings)

    monkeypatch.setattr(training_run, "write_checkpoint", write)
    fit(make_options(steps=12, checkpoint_every=4, keep_checkpoints=1))
    assert seen == [[], [4], [8]]
    assert kept(make_options()) == [12]


def test_a_writer_that_fails_costs_no_checkpoint(make_options, monkeypatch):
    def write(path, *arguments, **settings):
        if path.name == "step_000012.safetensors":
            raise OSError(28, "No space left on device")
        write_checkpoint(path, *arguments, **settings)

    monkeypatch.setattr(training_run, "write_checkpoint", write)
    with pytest.raises(OSError, match=r"step_000012.safetensors cannot be written: No space left"):
        fit(make_options(checkpoint_every=4, keep_checkpoints=2))
    assert kept(make_options()) == [4, 8]


def test_a_later_checkpoint_that_cannot_be_read_does_not_count(make_options):
    fit(make_options(checkpoint_every=8))
    (make_options().out / "checkpoints" / "step_000025.safetensors").write_bytes(b"broken")
    fit(make_options(checkpoint_every=23, steps=24, keep_checkpoints=1, resume=True))
    # 24 was there and is where it goes on from; the broken 25 is not what is kept.
    assert kept(make_options()) == [24, 25]
    fit(make_options(checkpoint_every=8, keep_checkpoints=1, resume=True))
    assert kept(make_options()) == [25]
    read_checkpoint(make_options().out / "checkpoints" / "step_000025.safetensors")


def command(data, out, *extra):
    """Run the command with the stand-in in the place of a framework."""
    small = ["--width", "1", "--batch-size", "2", "--checkpoint-every", "2", "--data", str(data)]
    return run_training("jax", fit, [*small, "--out", str(out), *extra])


def test_resume_keeps_what_the_run_was_started_to_keep(tmp_path, data):
    out = tmp_path / "run"
    assert command(data, out, "--steps", "8", "--keep-checkpoints", "all") == 0
    assert command(data, out, "--steps", "10", "--resume") == 0
    assert names(out / "checkpoints") == [f"step_{n:06d}.safetensors" for n in (2, 4, 6, 8, 10)]
    assert command(data, out, "--steps", "12", "--resume", "--keep-checkpoints", "2") == 0
    assert names(out / "checkpoints") == [f"step_{n:06d}.safetensors" for n in (10, 12)]
    assert command(data, out, "--steps", "16", "--resume") == 0
    assert names(out / "checkpoints") == [f"step_{n:06d}.safetensors" for n in (14, 16)]


def test_a_run_from_before_the_option_keeps_all(tmp_path, data):
    out = tmp_path / "run"
    assert command(data, out, "--steps", "8", "--keep-checkpoints", "all") == 0
    described = json.loads((out / "run.json").read_text())
    del described["sessions"][0]["options"]["keep_checkpoints"]
    (out / "run.json").write_text(json.dumps(described))
    assert command(data, out, "--steps", "10", "--resume") == 0
    assert len(names(out / "checkpoints")) == 5


def test_keep_checkpoints_takes_a_number_or_all(tmp_path, capsys):
    received = []

    def keep(*argv):
        assert run_training("jax", received.append, ["--out", str(tmp_path / "x"), *argv]) == 0
        return received[-1].keep_checkpoints

    assert keep() == KEEP_CHECKPOINTS == 3
    assert keep("--keep-checkpoints", "5") == 5
    assert keep("--keep-checkpoints", "all") == keep("--keep-checkpoints", "0") == ALL_CHECKPOINTS
    for wrong, message in (("-2", "must be at least 0"), ("some", "invalid whole number, or all,")):
        arguments = ["--keep-checkpoints", wrong]
        assert exit_code(run_training, "jax", pytest.fail, arguments) == 2
        assert f"--keep-checkpoints: {message}" in capsys.readouterr().err


# --- what a kill leaves ----------------------------------------------------------------------


def test_leftovers_of_killed_writers_go_and_nothing_else(make_options):
    out = make_options().out
    fit(make_options(steps=12))
    ours = [
        out / "checkpoints" / ".step_000020.safetensors.a1b2c3_4.tmp",
        out / "samples" / ".step_000020.png.a1b2c3_4.tmp",
        *(
            out / f".{n}.a1b2c3_4.tmp"
            for n in ("run.json", "config.toml", "losses.csv", "losses.png")
        ),
        *(
            out / f".{n}.a1b2c3_4.tmp"
            for n in ("quality.csv", "events.out.tfevents.0000000001.gan")
        ),
    ]
    others = [
        out / "checkpoints" / "step_000020.safetensors.tmp",
        out / "samples" / ".mine.a1b2c3_4.tmp",
        out / ".evaluation.csv.a1b2c3_4.tmp",
        out / "notes.tmp",
    ]
    for path in (*ours, *others):
        path.mkdir()
        (path / "half").write_bytes(b"half")
    seen = fit(make_options(resume=True))
    assert seen[0][0] == 12
    assert [path.name for path in ours if path.exists()] == []
    assert [path.name for path in others if not path.exists()] == []


def test_run_killed_before_its_first_checkpoint_starts_again(make_options, tmp_path, capsys):
    whole = make_options(out=tmp_path / "whole")
    fit(whole)
    with pytest.raises(RuntimeError, match="crash"):
        fit(make_options(), stop_at(8))
    out = make_options().out
    assert names(out / "checkpoints") == []
    with open(out / "losses.csv", "a") as file:
        file.write("".join(f"{n},0.1,0.1,0.1,0.1,1.0\n" for n in range(1, 9)))
    assert fit(make_options(resume=True))[0][0] == 0
    assert f"starting again: {out} was stopped before its first" in capsys.readouterr().out
    assert loss_rows(out) == loss_rows(whole.out)
    # Step 0, whose samples were made twice, is there once.
    quality = [(folder / "quality.csv").read_text() for folder in (out, whole.out)]
    assert quality[0] == quality[1]


def test_run_whose_checkpoints_were_deleted_is_left_alone(make_options):
    fit(make_options())
    for path in (make_options().out / "checkpoints").iterdir():
        path.unlink()
    before = loss_rows(make_options().out)
    with pytest.raises(ValueError, match=r"nothing to resume: no checkpoint in .*checkpoints"):
        fit(make_options(resume=True))
    assert loss_rows(make_options().out) == before


def test_checkpoint_that_is_not_finite_is_not_resumed(make_options, capsys):
    fit(make_options())
    path = make_options().out / "checkpoints" / "step_000025.safetensors"
    last = read_checkpoint(path)
    last.arrays[KERNEL].flat[0] = np.nan
    write_checkpoint(path, last.arrays, last.spec, progress=last.progress)
    assert fit(make_options(resume=True))[0][0] == 20
    assert f"of {KERNEL} are NaN or infinite" in capsys.readouterr().out


def test_damaged_run_json_is_named(make_options):
    fit(make_options())
    (make_options().out / "run.json").write_text("{")
    with pytest.raises(
        ValueError, match=r"run.json: expected what training writes .*; move it away"
    ):
        fit(make_options(resume=True))
