"""Runs that are stopped and go on where they were, with NumPy as the framework."""

import signal

import numpy as np
import pytest

from shared.files.checkpoint import read_checkpoint
from shared.files.errors import InputError
from shared.run.training import NonFiniteError, TrainingRun
from tests.run.stand_in_run import (
    GREY,
    SPEC,
    FakeState,
    fit,
    interrupt_at,
    loss_rows,
    names,
    stop_at,
)

pytestmark = pytest.mark.usefixtures("quick_sample_quality")

# --- stopping --------------------------------------------------------------------------------


def test_interrupt_finishes_the_step_and_saves_it(make_options):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"after step 14 of 25; .*--resume --out"):
        fit(make_options(), interrupt_at(13))
    assert signal.getsignal(signal.SIGINT) is before
    out = make_options().out
    assert names(out / "checkpoints")[-1] == "step_000014.safetensors"
    assert names(out / "samples")[-1] == "step_000014.png"
    assert loss_rows(out)[-1][0] == "14"
    assert (out / "losses.png").exists()
    assert fit(make_options(resume=True))[0][0] == 14


def test_interrupt_at_the_last_step_is_a_complete_run(make_options):
    fit(make_options(), interrupt_at(24))
    assert names(make_options().out / "checkpoints")[-1] == "step_000025.safetensors"


def test_interrupt_after_the_record_waits_for_the_next_step(make_options):
    options = make_options()
    run = TrainingRun(options, device="cpu", versions={})
    state = FakeState(options, None)
    saved = []

    def train():
        with run:
            for step in run.remaining_steps():
                run.record(step, state.step(*run.inputs(step)))
                if run.checkpoint_due(step):
                    saved.append(step)
                if step == 3:  # too late for this step's question: the next one is the last
                    signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train()
    assert saved == [4]


@pytest.fixture
def default_interrupt():
    """Python's own handler: a shell makes a script's process in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_second_interrupt_stops_at_once(make_options, default_interrupt):
    def during(step, metrics):
        if step == 12:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return metrics

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        fit(make_options(), during)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert names(make_options().out / "checkpoints") == ["step_000010.safetensors"]


@pytest.mark.parametrize("value", [np.float32("nan"), np.float32("inf")])
def test_loss_that_is_not_finite_stops_the_run(make_options, value):
    def during(step, metrics):
        return metrics | ({"generator_loss": value} if step == 12 else {})

    with pytest.raises(NonFiniteError, match=f"generator_loss is {value} after step 13"):
        fit(make_options(), during)
    out = make_options().out
    assert names(out / "checkpoints") == ["step_000010.safetensors"]
    assert loss_rows(out)[-1][0] == "12"


def test_loss_that_is_not_finite_is_found_before_its_checkpoint(make_options):
    def during(step, metrics):
        return metrics | ({"generator_loss": float("nan")} if step == 14 else {})

    with pytest.raises(NonFiniteError):
        fit(make_options(checkpoint_every=3), during)
    assert names(make_options().out / "checkpoints")[-1] == "step_000012.safetensors"


# --- resuming --------------------------------------------------------------------------------


def test_resumed_run_equals_an_unbroken_one(make_options, tmp_path):
    whole = make_options(out=tmp_path / "whole", checkpoint_every=13)
    all_inputs = fit(whole)
    with pytest.raises(RuntimeError, match="crash"):
        fit(make_options(checkpoint_every=13), stop_at(23))
    assert loss_rows(make_options().out)[-1][0] == "23"  # beyond the checkpoint
    # The other framework goes on from where the first one left its last checkpoint.
    resumed = fit(make_options(checkpoint_every=13, resume=True, implementation="tf"))
    assert [step for step, _, _ in resumed] == list(range(13, 25))
    for (_, images, latents), (_, all_images, all_latents) in zip(
        resumed, all_inputs[13:], strict=True
    ):
        np.testing.assert_array_equal(images, all_images)
        np.testing.assert_array_equal(latents, all_latents)
    out = make_options().out
    assert loss_rows(out) == loss_rows(whole.out)
    last = "checkpoints/step_000025.safetensors"
    one, other = read_checkpoint(out / last).arrays, read_checkpoint(whole.out / last).arrays
    assert all(one[name].tobytes() == other[name].tobytes() for name in other)
    assert (out / "samples/step_000025.png").read_bytes() == (
        whole.out / "samples/step_000025.png"
    ).read_bytes()


def test_seconds_go_on_counting(make_options):
    fit(make_options(steps=2))
    losses = make_options().out / "losses.csv"
    lines = losses.read_text().splitlines()
    lines[-1] = lines[-1].rsplit(",", 1)[0] + ",100.000"
    losses.write_text("\n".join(lines) + "\n")
    fit(make_options(steps=3, resume=True))
    assert float(losses.read_text().splitlines()[-1].rsplit(",", 1)[1]) >= 100


def test_row_that_a_crash_cut_off_is_dropped(make_options):
    fit(make_options(steps=2))
    losses = make_options().out / "losses.csv"
    losses.write_text(losses.read_text() + "3,0.1,0.")
    fit(make_options(steps=3, resume=True))
    assert [row[0] for row in loss_rows(make_options().out)] == ["step", "1", "2", "3"]


def test_complete_run_says_so_and_does_nothing(make_options, capsys):
    fit(make_options())
    before = loss_rows(make_options().out)
    assert fit(make_options(resume=True)) == []
    printed = capsys.readouterr().out
    assert "already complete: 25 steps are done, --steps asks for 25" in printed
    assert loss_rows(make_options().out) == before


def test_corrupt_last_checkpoint_falls_back(make_options, capsys):
    fit(make_options())
    last = make_options().out / "checkpoints" / "step_000025.safetensors"
    content = last.read_bytes()
    last.write_bytes(content[:-100])
    assert [step for step, _, _ in fit(make_options(resume=True))] == list(range(20, 25))
    printed = capsys.readouterr().out
    assert f"skipped: {last}: expected a complete safetensors file" in printed
    assert "step_000020.safetensors (written by pytorch)" in printed
    assert read_checkpoint(last).progress["step"] == 25


def test_all_checkpoints_corrupt(make_options):
    fit(make_options(steps=11))
    for path in (make_options().out / "checkpoints").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(InputError, match=r"no checkpoint can be read: .*000011.*000010"):
        fit(make_options(resume=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spec": SPEC.replace(width=2)}, "width: 1 in the checkpoint, 2 asked for"),
        ({"spec": SPEC.replace(loss="lsgan")}, "loss: bce in the checkpoint, lsgan asked for"),
        ({"spec": SPEC.replace(batch_size=3)}, "batch_size: 2 in the checkpoint, 3 asked for"),
        ({"seed": 8}, "seed: 7 in the checkpoint, 8 asked for"),
        ({"dtype": "float64"}, "dtype: float32 in the checkpoint, float64 asked for"),
    ],
)
def test_resume_with_other_options_names_them(make_options, changes, message):
    fit(make_options(steps=1))
    with pytest.raises(InputError, match=message):
        fit(make_options(resume=True, **changes))


def test_resume_without_a_run(make_options):
    with pytest.raises(ValueError, match=r"nothing to resume: no checkpoint in .*run/checkpoints"):
        fit(make_options(resume=True))


def test_resume_on_other_data_is_noted(make_options, tmp_path, capsys):
    fit(make_options(steps=1))
    other = tmp_path / "other.npz"
    np.savez(other, images=np.zeros((4, 64, 64, 3), np.uint8))
    fit(make_options(steps=2, resume=True, data=other))
    assert "note: it was trained on 10 images from images.npz" in capsys.readouterr().out


@pytest.mark.parametrize("generator_batch", ["same_latents", "new_latents"])
def test_resumed_run_of_several_discriminator_steps(make_options, tmp_path, generator_batch):
    spec = GREY.replace(discriminator_steps=3, generator_batch=generator_batch)
    whole = fit(make_options(spec=spec, out=tmp_path / "whole", steps=9))
    fit(make_options(spec=spec, steps=4))
    resumed = fit(make_options(spec=spec, steps=9, resume=True))
    assert [step for step, _, _ in resumed] == list(range(4, 9))
    for (_, *inputs), (_, *expected) in zip(resumed, whole[4:], strict=True):
        for array, other in zip(inputs, expected, strict=True):
            np.testing.assert_array_equal(array, other)
    assert loss_rows(make_options().out) == loss_rows(tmp_path / "whole")


def test_resume_with_another_order_of_a_step_names_it(make_options):
    fit(make_options(steps=1))
    for field, value, message in (
        ("discriminator_steps", 2, "discriminator_steps: 1 in the checkpoint, 2 asked for"),
        ("generator_batch", "new_latents", "generator_batch: same_images in the checkpoint, new_"),
    ):
        with pytest.raises(InputError, match=message):
            fit(make_options(resume=True, spec=SPEC.replace(**{field: value})))
