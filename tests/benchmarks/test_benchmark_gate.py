"""The equivalence gate: it passes the truth and stops planted faults."""

import json

import numpy as np
import pytest

from benchmarks.worker import gate
from shared.reference.step import train_step
from shared.spec import SYSTEMS, Conventions
from tests.benchmarks.stand_ins import INSTALLED

pytestmark = pytest.mark.skipif(not INSTALLED, reason="no framework is installed")


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("loss", ["bce", "lsgan"])
def test_gate_passes_the_truth_itself(system, loss):
    problem = gate.gate_problem(SYSTEMS[system].replace(loss=loss))
    truth = gate.truth(problem)
    check = gate.compare(problem, truth, truth.metrics, truth.arrays)
    assert check["passed"]
    assert check["worst_loss"]["difference"] == check["worst_array"]["difference"] == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_norm_running_variance": "biased"},
        {"batch_norm_epsilon": 1e-3},
        {"batch_norm_statistics": "not_in_generator_step"},
        {"discriminator_loss_scale": 0.5},
        {"adam_epsilon": 1e-7},
        {"detach_fake": False},
        {"update_order": "simultaneous"},
        {"discriminator_batches": "merged"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_gate_stops_a_planted_fault(wrong):
    require_stopped("dcgan64", wrong)


@pytest.mark.parametrize(
    ("system", "wrong"),
    [
        ("conv28", {"batch_norm_running_variance": "biased"}),
        ("conv28", {"flatten_order": "chw"}),
        ("conv28", {"detach_fake": False}),
        ("conv28", {"update_order": "simultaneous"}),
        ("mlp28", {"discriminator_loss_scale": 0.5}),
        ("mlp28", {"adam_beta1": 0.9}),
    ],
    ids=str,
)
def test_gate_stops_a_planted_fault_in_other_systems(system, wrong):
    require_stopped(system, wrong)


def require_stopped(system, wrong):
    problem = gate.gate_problem(SYSTEMS[system])
    step = train_step(
        problem.spec,
        {n: a.astype(np.float64) for n, a in problem.start.items()},
        problem.real_images.astype(np.float64),
        problem.latents.astype(np.float64),
        Conventions(**wrong),
    )
    check = gate.compare(problem, gate.truth(problem), step.metrics, step.arrays)
    assert not check["passed"]
    assert "does not agree" in gate.describe_failure(check)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gate_stops_a_tensor_that_is_not_finite_and_names_it(bad):
    problem = gate.gate_problem(SYSTEMS["dcgan64"])
    truth = gate.truth(problem)
    name = "discriminator/conv_3/kernel"
    check = gate.compare(
        problem, truth, truth.metrics, truth.arrays | {name: truth.arrays[name] * bad}
    )
    assert not check["passed"]
    assert name in gate.describe_failure(check)
    json.dumps(check, allow_nan=False)


@pytest.mark.parametrize("image_size", [32, 128, 256])
def test_gate_of_another_size_stops_a_planted_fault(image_size):
    problem = gate.gate_problem(SYSTEMS["dcgan64"].replace(image_size=image_size))
    assert problem.real_images.shape == (8, image_size, image_size, 3)
    truth = gate.truth(problem)
    assert gate.compare(problem, truth, truth.metrics, truth.arrays)["passed"]
    wrong = gate.truth(problem, Conventions(batch_norm_running_variance="biased"))
    assert not gate.compare(problem, truth, wrong.metrics, wrong.arrays)["passed"]


@pytest.mark.parametrize(("system", "usual", "channels"), [("dcgan64", 3, 1), ("conv28", 1, 3)])
def test_gate_of_other_channels_has_the_number_that_its_seed_is_for(system, usual, channels):
    problem = gate.gate_problem(SYSTEMS[system].replace(channels=channels))
    assert problem.spec.channels == problem.real_images.shape[-1] == usual
