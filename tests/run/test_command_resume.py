"""--resume alone: the options are those of the run, and the command line wins."""

import tomllib

import pytest

from shared.files.checkpoint import read_checkpoint
from shared.run.command import run_training
from tests.run.stand_in_run import fit, loss_rows, names


def train(*argv):
    """Run the command with the stand-in in the place of a framework."""
    return run_training("jax", fit, [str(a) for a in argv])


@pytest.fixture
def run(tmp_path, data):
    """Return the folder of a run with hardly a default option."""
    out = tmp_path / "run"
    options = ("--width", 1, "--batch-size", 2, "--loss", "lsgan", "--dtype", "float64")
    others = ("--seed", 5, "--learning-rate", 0.25, "--checkpoint-every", 2)
    assert train(*options, *others, "--steps", 4, "--data", data, "--out", out) == 0
    return out


def test_the_options_come_from_the_run(run, tmp_path, capsys):
    capsys.readouterr()
    moved = run.rename(tmp_path / "moved")  # its config.toml names the old folder
    assert train("--resume", "--out", moved, "--steps", 6) == 0
    printed = capsys.readouterr().out
    assert "changed by the command line: steps 6 (was 4)\n" in printed
    assert loss_rows(moved)[-1][0] == "6"
    assert not run.exists()
    last = read_checkpoint(moved / "checkpoints" / "step_000006.safetensors")
    assert (last.spec.width, last.spec.loss, last.progress["dtype"]) == (1, "lsgan", "float64")
    assert last.spec.generator_optimizer.learning_rate == 0.25
    assert train("--resume", "--out", moved) == 0  # 6 is what the run is to make now
    assert "already complete: 6 steps are done, --steps asks for 6" in capsys.readouterr().out


def test_what_belongs_to_the_run_cannot_be_changed(run, capsys):
    capsys.readouterr()
    assert train("--resume", "--out", run, "--seed", 6) == 2
    assert "seed: 5 in the checkpoint, 6 asked for" in capsys.readouterr().err
    assert tomllib.loads((run / "config.toml").read_text())["seed"] == 5


def test_a_file_stands_between_the_run_and_the_command_line(run, tmp_path):
    (tmp_path / "more.toml").write_text("steps = 6\nsample-every = 3\n")
    assert train("--resume", "--out", run, "--config", tmp_path / "more.toml", "--steps", 7) == 0
    config = tomllib.loads((run / "config.toml").read_text())
    assert (config["steps"], config["sample-every"], config["seed"]) == (7, 3, 5)


def test_the_default_folder_is_found(tmp_path, data, monkeypatch):
    first, moved = tmp_path / "first", tmp_path / "moved"
    first.mkdir()
    monkeypatch.chdir(first)
    for _ in range(2):
        assert train("--width", 1, "--batch-size", 2, "--data", data, "--steps", 2) == 0
    first.rename(moved)
    monkeypatch.chdir(moved)
    assert train("--resume", "--steps", 3) == 0
    assert [loss_rows(run)[-1][0] for run in sorted((moved / "runs").iterdir())] == ["2", "3"]


def test_an_event_file_is_written_on(run):
    pytest.importorskip("tensorboard")
    count = lambda: len([n for n in names(run) if n.startswith("events.out")])  # noqa: E731
    assert train("--resume", "--out", run, "--steps", 5, "--tensorboard") == 0
    assert train("--resume", "--out", run, "--steps", 6) == 0
    assert count() == 2
    assert train("--resume", "--out", run, "--steps", 7, "--no-tensorboard") == 0
    assert count() == 2


@pytest.mark.parametrize("left", [(), ("stray.txt",), ("checkpoints/", "samples/", "stray.txt")])
def test_where_no_run_is_there_is_nothing_to_resume(tmp_path, capsys, left):
    out = tmp_path / "run"
    out.mkdir()
    for name in left:
        (out / name).mkdir() if name.endswith("/") else (out / name).write_text("mine")
    assert train("--resume", "--out", out) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nothing to resume: " in error
    assert sorted(f"{p.name}{'/' * p.is_dir()}" for p in out.iterdir()) == sorted(left)
