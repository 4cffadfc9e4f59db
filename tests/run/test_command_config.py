"""--config FILE, and the config.toml that every run leaves."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from shared.files.checkpoint import read_checkpoint
from shared.run.command import run_training
from shared.run.folder import RunFolder
from shared.run.options import build_parser
from tests import ROOT, exit_code
from tests.run.stand_in_run import fit, loss_rows, ten_pictures

EVERY_OPTION = {
    "system": ("conv28", "mlp28"),
    "loss": ("lsgan", "bce"),
    "image-size": (28, 28),
    "channels": (3, 1),
    "data": ("a folder/bilder", "elsewhere"),
    "width": (5, 6),
    "batch-size": (12, 6),
    "full": (True, False),
    "steps": (11, 12),
    "learning-rate": (0.25, 0.5),
    "d-steps": (2, 3),
    "generator-batch": ("new-latents", "same-images"),
    "seed": (3, 4),
    "out": ("Läufe/eins", "zwei"),
    "resume": (False, False),
    "sample-every": (7, 8),
    "checkpoint-every": (9, 10),
    "keep-checkpoints": (4, 5),
    "tensorboard": (True, False),
    "device": ("cpu", "gpu"),
    "dtype": ("float64", "float32"),
    "precision": ("tf32", "bf16"),
    "mode": ("function", "xla"),
    "devices": (2, 3),
    "batch-norm": ("per-replica", "global"),
    "wait-limit": (60.5, 61.0),
    "debug": (True, False),
}


def on_the_command_line(values):
    """Return options as arguments of a command line."""
    for key, value in values.items():
        if isinstance(value, bool):
            yield f"--{'' if value else 'no-'}{key}"
        else:
            yield from (f"--{key}", str(value))


def config_text(values, folder):
    RunFolder(folder).write_config("jax", values)
    return (folder / "config.toml").read_text(encoding="utf-8")


def write(values, folder, separator="-"):
    text = config_text(values, folder)
    lines = [line.split(" = ") if " = " in line else [line] for line in text.splitlines()]
    path = folder / "c.toml"
    text = "\n".join(" = ".join([key.replace("-", separator), *rest]) for key, *rest in lines)
    path.write_text(text, encoding="utf-8")
    return path


def test_every_option_is_tested_here():
    actions = {action.dest.replace("_", "-") for action in build_parser("jax")._actions}
    # --init-from reads files: test_init_from.py
    assert actions - {"help", "config", "init-from"} == set(EVERY_OPTION)


@pytest.mark.parametrize("separator", ["-", "_"])
def test_a_file_says_what_the_command_line_says(parse, tmp_path, separator):
    values = {key: first for key, (first, _) in EVERY_OPTION.items()}
    path = write(values, tmp_path, separator)
    from_file, typed = parse("--config", str(path)), parse(*on_the_command_line(values))
    assert from_file == typed
    assert (from_file.spec.width, from_file.wait_limit, from_file.out) == (
        5,
        60.5,
        Path("Läufe/eins"),
    )


def test_the_command_line_holds_before_the_file(parse, tmp_path):
    first = {key: value for key, (value, _) in EVERY_OPTION.items()}
    second = {key: value for key, (_, value) in EVERY_OPTION.items()}
    path = write(first, tmp_path)
    typed = list(on_the_command_line(second))
    assert parse("--config", str(path), *typed) == parse(*typed)
    assert parse(*typed, "--config", str(path)) == parse(*typed)


def test_all_checkpoints_and_whole_numbers_where_fractions_may_be(parse, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('keep-checkpoints = "all"\nwait-limit = 5\nlearning_rate = 1')
    options = parse("--config", str(path))
    assert (options.keep_checkpoints, options.wait_limit) == (0, 5.0)
    assert options.spec.generator_optimizer.learning_rate == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "batchsize = 3",
            "c.toml: unrecognized arguments: --batchsize=3; did you mean --batch-size?",
        ),
        ("learning_rat = 3", "did you mean --learning-rate?"),
        ("zzz = 3", "c.toml: unrecognized arguments: --zzz=3\n"),
        ("config = 'd.toml'", "c.toml: it names another file with config"),
        ("batch_size = 16.0", "c.toml: argument --batch-size: invalid whole number value: '16.0'"),
        ("steps = true", "c.toml: argument --steps: expected one argument"),
        ("full = 1", "c.toml: argument --full/--no-full: ignored explicit argument '1'"),
        ("steps = false", "c.toml: unrecognized arguments: --no-steps"),
        ("width = [3, 4]", "c.toml: unrecognized arguments: 4"),
        ("learning-rate = 'big'", "argument --learning-rate: invalid positive value: 'big'"),
        ("keep-checkpoints = 'x'", "--keep-checkpoints: invalid whole number, or all, value"),
        ("loss = 'lsgn'", "; did you mean lsgan?"),
        ("lr = 1.0", "unrecognized arguments: --lr=1.0; did you mean --learning-rate?"),
        ("loss = 'hinge'", "argument --loss: invalid choice: 'hinge' (choose from 'bce', 'bce_pr"),
        ("[steps]\nn = 3", "argument --steps: invalid whole number value: \"{'n': 3}\""),
        (
            "steps = ",
            "c.toml: expected TOML, found another or damaged file (TOMLDecodeError: Invalid value",
        ),
        ("x = " + "[" * 10_000, "c.toml: expected TOML, found"),
        ("seed = -1", "--seed: must be at least 0, received -1"),
    ],
)
def test_mistakes_in_a_file_are_one_line(tmp_path, capsys, text, message):
    path = tmp_path / "c.toml"
    path.write_text(text)
    assert exit_code(run_training, "tf", pytest.fail, ["--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["nothing.toml", "."])
def test_a_file_that_cannot_be_read(tmp_path, capsys, name):
    assert run_training("tf", pytest.fail, ["--config", str(tmp_path / name)]) == 2
    assert f"{tmp_path / name} cannot be read: " in capsys.readouterr().err


def test_text_of_every_kind_comes_back(tmp_path):
    values = {
        "out": 'a "quoted" \\ path\n\t\x07\x7f ü 漢字',
        "width": 3,
        "learning-rate": 1e-5,
        "full": True,
    }
    assert tomllib.loads(config_text(values, tmp_path)) == values


# --- config.toml of a run --------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--learning-rate", "1e-3", "--loss", "minimax", "--dtype", "float64", "--seed", "9"],
        ["--system", "conv28", "--d-steps", "2", "--generator-batch", "new-latents"],
        ["--system", "mlp28", "--keep-checkpoints", "all", "--tensorboard"],
    ],
    ids=["defaults", "rate", "order of a step", "flags"],
)
def test_the_config_of_a_run_starts_it_again(tmp_path, monkeypatch, options):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    ten_pictures(tmp_path)
    small = ["--width", "1", "--batch-size", "2", "--steps", "9", "--checkpoint-every", "4"]
    first = [*small, *options, "--data", "images.npz", "--out", "one run"]
    assert run_training("jax", fit, first) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run_training("jax", fit, ["--config", "../one run/config.toml", "--out", "new"]) == 0
    one, new = tmp_path / "one run", tmp_path / "elsewhere" / "new"
    assert loss_rows(one) == loss_rows(new)
    assert sorted(p.name for p in new.rglob("*")) == sorted(p.name for p in one.rglob("*"))
    last = "checkpoints/step_000009.safetensors"
    arrays, again = read_checkpoint(one / last).arrays, read_checkpoint(new / last).arrays
    assert all(arrays[name].tobytes() == again[name].tobytes() for name in arrays)
    text = [(run / "config.toml").read_text().splitlines() for run in (one, new)]
    assert {a for a, b in zip(*text, strict=True) if a != b} == {f'out = "{one}"'}


def test_the_config_of_a_run_resumes_it_in_place(tmp_path):
    data = ten_pictures(tmp_path)
    out = tmp_path / "run"
    small = ["--width", "1", "--batch-size", "2", "--steps", "4", "--data", str(data)]
    assert run_training("jax", fit, [*small, "--out", str(out)]) == 0
    config = str(out / "config.toml")
    assert run_training("jax", fit, ["--config", config]) == 2  # it holds a run
    assert run_training("jax", fit, ["--config", config, "--resume", "--steps", "6"]) == 0
    assert loss_rows(out)[-1][0] == "6"
    assert tomllib.loads((out / "config.toml").read_text())["steps"] == 6


def test_an_interrupted_run_has_its_config_already(tmp_path):
    data = ten_pictures(tmp_path)

    def crash(options):
        return fit(options, lambda step, metrics: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        run_training(
            "jax",
            crash,
            [
                "--width",
                "1",
                "--data",
                str(data),
                "--batch-size",
                "2",
                "--out",
                str(tmp_path / "run"),
            ],
        )
    assert (tmp_path / "run" / "config.toml").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="bytes as names")
@pytest.mark.parametrize("name", [b"L\xe4ufe", "Läufe".encode()], ids=["latin-1", "utf-8"])
def test_paths_come_back_in_any_locale(tmp_path, name):
    data = ten_pictures(tmp_path)
    out, new = os.path.join(os.fsencode(tmp_path), name), os.fsencode(tmp_path / "new")
    program = (
        "import sys; from shared.run.command import run_training; "
        "from tests.run.stand_in_run import fit; sys.exit(run_training('jax', fit))"
    )
    for locale, *arguments in (
        ("ascii", b"--width", b"1", b"--batch-size", b"2", b"--steps", b"3", b"--out", out,
         b"--data", os.fsencode(data)),
        ("utf-8", b"--config", out + b"/config.toml", b"--out", new),
        ("ascii", b"--config", out + b"/config.toml", b"--resume", b"--steps", b"4"),
        ("utf-8", b"--config", out + b"/config.toml", b"--resume", b"--steps", b"5"),
    ):  # fmt: skip
        setting = {"LC_ALL": "C", "PYTHONUTF8": "0"} if locale == "ascii" else {"PYTHONUTF8": "1"}
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=ROOT,
            env={**os.environ, **setting},
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == b""
    assert sorted(os.listdir(os.fsencode(tmp_path))) == sorted([name, b"images.npz", b"new"])
