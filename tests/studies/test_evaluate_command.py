"""`python -m shared.evaluate`: the choice of run, data and framework, and bad input."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shared import sample
from shared.files.checkpoint import write_checkpoint
from shared.interface import MissingFrameworkError
from shared.run.folder import RunFolder
from shared.studies import evaluate
from tests import exit_code
from tests.conftest import installed_implementations
from tests.studies.evaluated_run import SPEC, figures, trained_arrays, write_data, write_run


@pytest.mark.slow
def test_a_run_of_the_training_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """With its own data, Fashion-MNIST, and its own framework."""
    name = installed_implementations()[0].name
    train = importlib.import_module(f"{name}_impl.train").main
    out = str(tmp_path / "run")
    small = ["--width", "4", "--batch-size", "4", "--steps", "2", "--checkpoint-every", "1"]
    assert train([*small, "--out", out]) == 0
    assert evaluate.main([out, "--samples", "16"]) == 0
    assert evaluate.main([out, "--samples", "16", "--step", "1"]) == 0
    printed = capsys.readouterr().out
    assert "after 2 steps" in printed
    assert "after 1 steps" in printed
    assert f"generated  by {name}, float32" in printed
    assert "data       2,000 Fashion-MNIST images" in printed
    assert "note" not in printed.split("generated  by")[1]


def test_data_are_those_of_the_session_that_made_the_step(tmp_path: Path, data: Path) -> None:
    run = RunFolder(write_run(tmp_path / "run", data=str(data)))
    run.add_session({}, {"start": 7, "options": {"data": None}})
    assert evaluate.recorded_data(run.path, 7) == data
    assert evaluate.recorded_data(run.path, 8) is None
    assert evaluate.recorded_data(run.path, 0) is None


def test_recorded_data_are_used(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    figures(tmp_path, write_run(tmp_path / "run", data=str(data)), "--samples", 4)
    assert "data       20 images from images.npz" in capsys.readouterr().out


@pytest.mark.parametrize("content",
    [
        None, "{", "{}", '{"sessions": []}', '{"sessions": [3]}', "3",
        '{"spec": {}, "sessions": [{"start": "x", "options": {}}]}',
    ],
)  # fmt: skip
def test_a_run_json_that_says_nothing_asks_for_data(
    tmp_path: Path, data: Path, content: str | None, capsys: pytest.CaptureFixture
) -> None:
    run = write_run(tmp_path / "run")
    (run / "run.json").unlink()
    if content is not None:
        (run / "run.json").write_text(content)
    assert evaluate.main([str(run)]) == 2
    assert "; give --data" in capsys.readouterr().err
    figures(tmp_path, run, "--data", data, "--samples", 4)


def test_auto_prefers_the_writer_and_takes_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    absent = {"tf"}

    def load(name: str) -> str:
        asked.append(name)
        if name in absent:
            raise MissingFrameworkError(f"{name} is not installed")
        return name

    monkeypatch.setattr(sample, "load_implementation", load)
    assert sample.choose_implementation("auto", "jax") == "jax"
    assert sample.choose_implementation("auto", "tf") == "pytorch"
    assert sample.choose_implementation("jax", "pytorch") == "jax"
    asked.clear()
    # What an untrusted file says is never imported.
    assert sample.choose_implementation("auto", "antigravity") == "pytorch"
    assert asked == ["pytorch"]
    absent |= {"pytorch", "jax"}
    with pytest.raises(MissingFrameworkError, match="tf is not installed; pytorch is not"):
        sample.choose_implementation("auto", "tf")


def test_a_run_whose_training_diverged(tmp_path: Path, data: Path) -> None:
    arrays = trained_arrays()
    arrays["generator/conv_transpose_5/kernel"][:] = np.nan
    run = write_run(tmp_path / "run", arrays)
    generator = evaluate.load_generator(run)
    dataset = evaluate.load_dataset(data, SPEC)
    with pytest.raises(ValueError, match="the generator makes NaN or infinity; "):
        evaluate.collect(generator, {"seed": 0, "step": 1}, dataset, 4, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda d: [d / "nothing"], "nothing is no run with a checkpoint"),
        (lambda d: [d], "is no run with a checkpoint; expected training's --out"),
        (lambda d: [d / "run", "--step", 5], "--step 5: .* expected one of 7"),
        (lambda d: [d / "run", "--samples", 1], "--samples: must be at least 2, received 1"),
        (lambda d: [d / "run", "--seed", -1], "--seed: must be at least 0"),
        (lambda d: [d / "run", "--framework", "theano"], "unknown implementation 'theano'"),
        (lambda d: [d / "run", "--data", d / "gone"], "gone does not exist"),
        (lambda d: [d / "lost"], "the run's data .*lost.npz is not there, .*: give --data"),
        (
            lambda d: [d / "run", "--json", d / "no" / "file"],
            "there is no folder .*no; make it",
        ),
        (lambda d: [d / "run", "--json", d], "is a folder; name a file in it"),
        (lambda d: [d / "cut"], "step_000007.safetensors: expected a complete safetensors file"),
        (lambda d: [d / "foreign", "--data", d / "images.npz"], "does not hold the seed"),
        (lambda d: [d / "run", "--data", write_data(d / "one.npz", 1)], "received 1 images to"),
    ],
)
def test_bad_input_is_one_line(
    arguments: Callable[[Path], list],
    message: str,
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    write_run(tmp_path / "run", writer=installed_implementations()[0].name)
    write_run(tmp_path / "lost", data=str(tmp_path / "lost.npz"))
    cut = RunFolder(write_run(tmp_path / "cut")).checkpoint(7)
    cut.write_bytes(cut.read_bytes()[:1000])
    foreign = RunFolder(write_run(tmp_path / "foreign")).checkpoint(7)
    write_checkpoint(foreign, trained_arrays(), SPEC, progress={"step": 7})
    assert exit_code(evaluate.main, [str(a) for a in arguments(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m shared.evaluate: error: ")
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error
