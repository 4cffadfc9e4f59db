"""The command line of the three: defaults, options, errors in one line."""

import importlib
import re
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest

from shared.interface import MissingFrameworkError
from shared.run.command import run_training
from shared.run.options import QUICK_RUNS, TrainingOptions
from shared.spec import SYSTEMS, AdamSpec
from tests import ROOT, exit_code
from tests.run.stand_in_run import names


def test_defaults(parse):
    options = parse()
    rate = AdamSpec(learning_rate=8e-4)  # 2e-4 · 64/16
    assert options.spec == SYSTEMS["dcgan64"].replace(
        width=16, batch_size=32, generator_optimizer=rate, discriminator_optimizer=rate
    )
    assert options == TrainingOptions(
        implementation="jax",
        spec=options.spec,
        data=None,
        steps=600,
        seed=0,
        out=Path("runs/jax-dcgan64-bce"),
        resume=False,
        device="auto",
        dtype="float32",
        checkpoint_every=500,
        sample_every=100,
        tensorboard=False,
    )
    assert parse("--tensorboard").tensorboard


def test_explicit_options_hold(parse):
    spec = parse("--system", "dcgan64-lsgan", "--loss", "minimax", "--width", "5").spec
    assert (spec.name, spec.loss, spec.width, spec.batch_size) == (
        "dcgan64-lsgan",
        "minimax",
        5,
        32,
    )
    full = parse("--full").spec
    assert full == SYSTEMS["dcgan64"]
    mixed = parse("--full", "--batch-size", "9").spec
    assert (mixed.width, mixed.batch_size) == (64, 9)


@pytest.mark.parametrize("system", SYSTEMS)
def test_defaults_of_every_system(parse, system, capsys):
    own, quick = SYSTEMS[system], QUICK_RUNS[SYSTEMS[system].architecture]
    options = parse("--system", system)
    counts = (options.steps, options.sample_every, options.checkpoint_every)
    assert counts == (quick.steps, quick.sample_every, quick.checkpoint_every)
    rates = {
        name: AdamSpec(learning_rate=getattr(own, name).learning_rate * own.width / quick.width)
        for name in ("generator_optimizer", "discriminator_optimizer")
    }
    assert options.spec == own.replace(width=quick.width, batch_size=quick.batch_size, **rates)
    assert parse("--system", system, "--full").spec == own
    with pytest.raises(SystemExit):
        run_training("jax", print, ["--help"])
    row = [system, *map(str, quick)]
    assert row in [line.split() for line in capsys.readouterr().out.splitlines()]


COMMANDS = (
    *("benchmarks.compare", "benchmarks.gpu_check", "benchmarks.run"),
    *("benchmarks.scaling_model", "shared.accuracy", "shared.agreement", "shared.equilibrium"),
    *("shared.conformance.__main__", "shared.convert.__main__", "shared.explain.__main__"),
    *("shared.report.__main__", "shared.evaluate", "shared.loss_curves", "shared.sample"),
    "shared.trajectory",
)


@pytest.mark.parametrize("name", [*COMMANDS, "pytorch", "tf", "jax"])
def test_every_help_fits_into_eighty_columns(name, monkeypatch, capsys):
    """A terminal breaks a longer line in the middle of a word."""
    monkeypatch.setenv("COLUMNS", "80")
    training = partial(run_training, name, print)
    main = importlib.import_module(name).main if "." in name else training
    assert exit_code(main, ["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    assert [line for line in lines if len(line) > 80] == []


def test_all_commands_have_their_help_tested():
    mains = [p for room in ("shared", "benchmarks") for p in (ROOT / room).rglob("*.py")]
    of_a_command = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in mains
        if re.search(r"^main = command\(|^def main\(arguments: Seq", path.read_text("utf-8"), re.M)
    }
    others = {"shared.conformance.serve", "shared.fixtures.__main__"}  # of ours, not of users
    assert {name.replace(".studies", "") for name in of_a_command} == {*COMMANDS} | others


def test_order_of_a_step(parse):
    spec = parse("--d-steps", "5").spec
    assert (spec.discriminator_steps, spec.generator_batch) == (5, "same_images")
    spec = parse("--system", "conv28", "--d-steps", "2").spec
    assert (spec.discriminator_steps, spec.generator_batch) == (2, "same_latents")
    for name in ("same-images", "same-latents", "new-latents"):
        spec = parse("--system", "conv28", "--generator-batch", name).spec
        assert (spec.discriminator_steps, spec.generator_batch) == (1, name.replace("-", "_"))
    full = parse("--system", "mlp28", "--full", "--d-steps", "3", "--loss", "minimax").spec
    assert full == SYSTEMS["mlp28"].replace(discriminator_steps=3, loss="minimax")


def test_learning_rates(parse):
    assert parse("--width", "32").spec.generator_optimizer.learning_rate == 4e-4
    spec = parse("--learning-rate", "1e-3").spec
    assert spec.generator_optimizer == spec.discriminator_optimizer == AdamSpec(learning_rate=1e-3)


@pytest.mark.parametrize("rate", ["0", "-0.5", "nan", "inf"])
def test_a_learning_rate_that_cannot_be_is_refused(rate, capsys):
    assert exit_code(run_training, "jax", print, ["--learning-rate", rate]) == 2
    assert "--learning-rate: must be a positive number, received" in capsys.readouterr().err


def test_default_folder_takes_the_next_free_name(parse):
    assert parse().out == Path("runs/jax-dcgan64-bce")
    Path("runs/jax-dcgan64-bce").mkdir(parents=True)
    assert parse().out == Path("runs/jax-dcgan64-bce-2")
    Path("runs/jax-dcgan64-bce-2").mkdir()
    Path("runs/jax-dcgan64-bce-notes").mkdir()
    assert parse().out == Path("runs/jax-dcgan64-bce-3")
    assert parse("--resume").out == Path("runs/jax-dcgan64-bce-2")
    assert parse("--loss", "lsgan", "--resume").out == Path("runs/jax-dcgan64-lsgan")
    assert parse("--out", "runs/mine").out == Path("runs/mine")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--d-steps", "0"], "argument --d-steps: must be at least 1, received 0"),
        (["--steps", "0"], "argument --steps: must be at least 1, received 0"),
        (["--batch-size", "1"], "argument --batch-size: must be at least 2, received 1"),
        (["--seed", "-1"], "argument --seed: must be at least 0, received -1"),
        (["--width", "0"], "argument --width: must be at least 1, received 0"),
        (["--sample-every", "0"], "argument --sample-every: must be at least 1, received 0"),
        (
            ["--checkpoint-every", "-3"],
            "argument --checkpoint-every: must be at least 1, rec",
        ),
    ],
)
def test_numbers_out_of_range(parse, capsys, argv, message):
    assert exit_code(run_training, "tf", pytest.fail, argv) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"python -m tf_impl.train: error: {message}")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "end"),
    [
        (["--steps", "many"], "invalid whole number value: 'many'"),
        (["--system", "x"], ")"),
        (["--system", "dcgan"], "did you mean dcgan64 or dcgan64-lsgan?"),
        (["--loss", "LSGAN"], "did you mean lsgan?"),
        (["--loss", "lsgn"], "did you mean lsgan?"),
        (["--generator-batch", "same_images"], "did you mean same-images?"),
        (["--wid", "3"], "did you mean --width?"),
        (["--lr", "3"], "did you mean --learning-rate?"),
        (["--learning_rate=3"], "did you mean --learning-rate?"),
        (["--sytem", "mlp28"], "did you mean --system?"),
        (["--bs", "3"], "did you mean --batch-size?"),
        (["--batch", "3"], "did you mean --batch-size or --batch-norm?"),
        (["--zzz", "3"], "unrecognized arguments: --zzz 3"),
        (["--", "3"], "unrecognized arguments: -- 3"),
    ],
)
def test_usage_errors_are_one_line_and_name_what_was_meant(argv, end, capsys):
    with pytest.raises(SystemExit) as caught:
        run_training("tf", pytest.fail, argv)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m tf_impl.train: error: ")
    assert error.endswith(f"{end}\n")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("two\nlines"), 2, "error: two lines"),
        (OSError(28, "No space left on device"), 2, "error: No space left on device"),
        (FileNotFoundError(2, "No such file", "a/b"), 2, "error: a/b: No such file"),
        (MissingFrameworkError("needs torch"), 2, "error: needs torch"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("interrupted after step 3"), 130, "interrupted after step 3"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_errors_become_one_line(capsys, error, code, line, debug):
    def train(options):
        raise error

    assert run_training("pytorch", train, ["--debug"] if debug else []) == code
    printed = capsys.readouterr().err
    assert printed.endswith(f"python -m pytorch_impl.train: {line}\n")
    assert ("Traceback" in printed) is debug
    if not debug:
        assert printed.count("\n") == 1


def test_mistake_of_ours_is_not_hidden():
    def train(options):
        raise KeyError("bug")

    with pytest.raises(KeyError):
        run_training("pytorch", train, [])


def test_interrupted_command_ends_with_130_and_a_checkpoint(tmp_path, data):
    program = textwrap.dedent("""
        import os, signal, sys
        from tests.run.stand_in_run import fit
        from shared.run.command import run_training

        def during(step, metrics):
            if step == 5:
                os.kill(os.getpid(), signal.SIGINT)
            return metrics

        sys.exit(run_training("jax", lambda options: fit(options, during)))
    """)
    out = tmp_path / "run"
    argv = ["--width", "1", "--batch-size", "2", "--data", str(data), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", program, *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert "interrupted after step 6 of 600; go on with --resume" in done.stderr
    assert names(out / "checkpoints") == ["step_000006.safetensors"]
