"""Training that goes wrong says so: numbers that are not finite, collapse, memory, disks."""

import io
import re

import numpy as np
import pytest

from shared.files.checkpoint import read_checkpoint
from shared.interface import METRIC_NAMES
from shared.run.command import run_training
from shared.run.console import is_out_of_memory
from shared.run.training import STEPS_IN_A_ROW, DiscriminatorWatch, NonFiniteError, TrainingRun
from shared.spec import LOSS_NAMES
from tests.run.stand_in_run import (
    KERNEL,
    SPEC,
    FakeState,
    fit,
    loss_rows,
    names,
)

pytestmark = pytest.mark.usefixtures("quick_sample_quality")

# --- NaN and infinity ------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_says_what_is_left_and_what_to_try(make_options):
    def during(step, metrics):
        return metrics | ({"generator_loss": np.float32("nan")} if step == 12 else {})

    last = make_options().out / "checkpoints" / "step_000010.safetensors"
    expected = (
        f"generator_loss is nan after step 13; the last good checkpoint is {last}; "
        "start a new run with a lower --learning-rate (it was 0.0002), or --loss lsgan"
    )
    with pytest.raises(NonFiniteError, match=re.escape(expected)):
        fit(make_options(), during)


def train_with_broken_state(options, broken_step, meddle):
    run = TrainingRun(options, device="cpu", versions={})
    state = FakeState(options, run.restored)
    with run:
        for step in run.remaining_steps():
            run.record(step, state.step(*run.inputs(step)))
            if run.checkpoint_due(step):
                arrays = {name: array.copy() for name, array in state.arrays.items()}
                if step == broken_step:
                    meddle(arrays)
                run.save_checkpoint(step, arrays)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", [KERNEL, "discriminator/batch_norm_1/var", f"generator_optimizer/v/{KERNEL}"]
)
def test_a_state_that_is_not_finite_is_not_written(make_options, name, value):
    if name not in FakeState(make_options(), None).arrays:
        name = next(n for n in FakeState(make_options(), None).arrays if "optimizer" in n)

    def meddle(arrays):
        arrays[name].flat[1] = value

    size = FakeState(make_options(), None).arrays[name].size
    with pytest.raises(NonFiniteError) as caught:
        train_with_broken_state(make_options(), 19, meddle)
    last = make_options().out / "checkpoints" / "step_000010.safetensors"
    assert str(caught.value) == (
        f"after step 20: 1 of the {size} numbers of {name} are NaN or infinite; the last good "
        f"checkpoint is {last}; start a new run with a lower --learning-rate (it was 0.0002), "
        "or --loss lsgan"
    )
    assert names(make_options().out / "checkpoints") == ["step_000010.safetensors"]
    read_checkpoint(last)
    assert loss_rows(make_options().out)[-1][0] == "20"


def test_several_broken_arrays_are_counted(make_options):
    def meddle(arrays):
        for array in arrays.values():
            if array.shape:
                array[...] = np.nan

    count = sum(bool(a.shape) for a in FakeState(make_options(), None).arrays.values())
    with pytest.raises(NonFiniteError, match="there is no checkpoint yet") as caught:
        train_with_broken_state(make_options(), 9, meddle)
    assert f"(and some of {count - 1} other arrays)" in str(caught.value)


# --- a discriminator that has won, or is stuck -----------------------------------------------


def losses(discriminator, real=0.5, fake=0.5):
    return dict(zip(METRIC_NAMES, (discriminator, real, fake, 3.0), strict=True))


def warnings_of(loss, sequence):
    watch = DiscriminatorWatch(loss)
    said = [(n, watch.see(n, values)) for n, values in enumerate(sequence, start=1)]
    return [(n, text) for n, text in said if text]


@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_a_loss_pinned_near_zero_is_reported_once(loss):
    sequence = [losses(0.9)] * 30 + [losses(9e-3)] * 5 * STEPS_IN_A_ROW
    ((step, text),) = warnings_of(loss, sequence)
    assert step == 30 + STEPS_IN_A_ROW
    assert text.startswith("warning: the discriminator has won: its loss was under 0.01 at every")
    assert f"from 31 to {step}" in text
    assert ("--loss lsgan" in text) is (loss != "lsgan")


def test_a_loss_that_recovers_in_between_is_no_collapse():
    pinned = [losses(9e-3)] * (STEPS_IN_A_ROW - 1)
    assert warnings_of("bce", [*pinned, losses(0.02), *pinned]) == []


@pytest.mark.parametrize("half", ["real", "fake"])
def test_a_loss_at_the_clamp_is_reported_where_there_is_one(half):
    # 32 times 100 in float32, summed and divided, need not be 100.
    sequence = [losses(100.0, **{half: 99.99999})] * STEPS_IN_A_ROW
    ((step, text),) = warnings_of("bce_probs", sequence)
    assert step == STEPS_IN_A_ROW
    assert text.startswith("warning: the discriminator is stuck: its loss was at 100, which")
    assert warnings_of("bce", sequence) == []
    assert warnings_of("bce_probs", [losses(60.0, **{half: 60.0})] * 1000) == []


def test_a_run_warns_on_stderr_and_goes_on(make_options, capsys):
    options = make_options(steps=STEPS_IN_A_ROW + 60, checkpoint_every=1000, sample_every=1000)
    fit(options, lambda step, metrics: metrics | {"discriminator_loss": 1e-5})
    assert capsys.readouterr().err.count("the discriminator has won") == 1
    assert len(loss_rows(options.out)) == 1 + options.steps


# --- memory ----------------------------------------------------------------------------------


def pytorch_errors():
    torch = pytest.importorskip("torch")
    yield torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    yield caught.value


def tf_errors():
    tf = pytest.importorskip("tensorflow")
    yield tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9]")
    with pytest.raises(tf.errors.ResourceExhaustedError) as caught:
        tf.zeros([2**25, 2**25])
    yield caught.value


def jax_errors():
    jax = pytest.importorskip("jax")
    yield jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
    with pytest.raises(RuntimeError) as caught:
        jax.numpy.zeros((2**25, 2**25)).block_until_ready()
    yield caught.value


def numpy_errors():
    yield MemoryError()
    with pytest.raises(MemoryError) as caught:
        np.empty(2**55)
    yield caught.value


@pytest.mark.parametrize("errors", [pytorch_errors, tf_errors, jax_errors, numpy_errors])
def test_no_memory_left_names_the_batch_size(errors, tmp_path, capsys):
    for error in errors():

        def train(options, error=error):
            raise error

        small = ["--batch-size", "48", "--width", "7", "--out", str(tmp_path / "run")]
        assert run_training("tf", train, small) == 2
        said = capsys.readouterr().err
        assert said.startswith(
            "python -m tf_impl.train: error: out of memory with --batch-size 48 and --width 7; "
            "try a smaller --batch-size or --width ("
        )
        assert said.count("\n") == 1
        assert len(said) < 400
        assert run_training("tf", train, [*small, "--debug"]) == 2
        assert "Traceback" in capsys.readouterr().err


def test_other_errors_are_not_taken_for_it(tmp_path):
    for error in (RuntimeError("shapes differ"), KeyError("out of memory"), AssertionError()):
        assert not is_out_of_memory(error)

        def train(options, error=error):
            raise error

        with pytest.raises(type(error)):
            run_training("tf", train, ["--out", str(tmp_path / "run")])


# --- disks -----------------------------------------------------------------------------------


class FullDisk(io.StringIO):
    def flush(self):
        raise OSError(28, "No space left on device")


def test_a_table_that_cannot_be_written_is_named(make_options, monkeypatch):
    run = TrainingRun(make_options(), device="cpu", versions={})
    state = FakeState(make_options(), None)

    def train():
        with run:
            monkeypatch.setattr(run._records, "_losses", FullDisk())
            for step in run.remaining_steps():
                run.record(step, state.step(*run.inputs(step)))

    with pytest.raises(OSError, match=r"run/losses.csv cannot be written: No space left on device"):
        train()
    # The folder is free again.
    fit(make_options(resume=True))


def test_spec_of_these_tests_has_the_rate_that_they_expect():
    assert SPEC.generator_optimizer.learning_rate == 2e-4
