"""The plain steps of benchmarks/baselines compute what their named conventions say."""

import importlib

import numpy as np
import pytest

from benchmarks.worker import gate
from shared.interface import IMPLEMENTATIONS, MissingFrameworkError, load_implementation
from shared.reference.comparison import state_differences
from shared.reference.step import StepResult, train_step
from shared.spec import SYSTEMS, Conventions
from shared.spec.compute import Compute
from tests.benchmarks.stand_ins import INSTALLED
from tests.tiers import SLOW_IN_TF_AND_JAX

SPEC = SYSTEMS["dcgan64"]


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def made(request: pytest.FixtureRequest) -> tuple:
    """The baseline, and its losses and state after the gate's step."""
    try:
        load_implementation(request.param)
    except MissingFrameworkError as error:
        pytest.skip(str(error))
    baseline = importlib.import_module(f"benchmarks.baselines.{request.param}_baseline")
    checkpoint = importlib.import_module(f"{request.param}_impl.checkpoint")
    problem = gate.gate_problem(SPEC)
    state = baseline.create_train_state(problem.spec, Compute(), seed=problem.seed)
    batches = baseline.batches_to_devices(state, problem.real_images, problem.latents)
    # A step that holds its modules trains those that are imported after its first call too.
    baseline.train_step(state, *batches)
    checkpoint.import_state(state, problem.start)
    metrics = baseline.train_step(state, *batches)
    return baseline, problem, metrics, checkpoint.export_state(state)


def truth(baseline: object, problem: gate.GateProblem, conventions: Conventions) -> StepResult:
    start = {name: array.astype(np.float64) for name, array in problem.start.items()}
    inputs = (problem.real_images.astype(np.float64), problem.latents.astype(np.float64))
    spec = problem.spec.replace(generator_batch=baseline.GENERATOR_BATCH)
    return train_step(spec, start, *inputs, conventions)


@SLOW_IN_TF_AND_JAX
def test_a_step_is_the_references_under_its_conventions(made: tuple) -> None:
    """Measured: losses 2e-6, arrays 1.3e-5 (1 - β₂ᵗ in float32 makes 6.5e-6 of it)."""
    baseline, problem, metrics, arrays = made
    expected = truth(baseline, problem, baseline.CONVENTIONS)
    for name, value in expected.metrics.items():
        assert float(metrics[name]) == pytest.approx(value, rel=gate.LOSS_BOUND), name
    differences = state_differences(problem.spec, arrays, expected.arrays)
    assert max(differences.values()) <= gate.ARRAY_BOUND


@SLOW_IN_TF_AND_JAX
def test_without_them_it_is_not(made: tuple) -> None:
    baseline, problem, _, arrays = made
    if baseline.__name__.endswith("pytorch_baseline"):
        pytest.skip("PyTorch's own layers follow the spec")
    expected = truth(baseline, problem, Conventions())
    assert max(state_differences(problem.spec, arrays, expected.arrays).values()) > 1e-4


@pytest.mark.skipif("pytorch" not in INSTALLED, reason="PyTorch is not installed")
def test_pytorchs_adam_counts_on_the_cpu_wherever_the_weights_are(monkeypatch):
    """As stock PyTorch: a counter on the device is read back for each parameter in each step."""
    import torch

    baseline = importlib.import_module("benchmarks.baselines.pytorch_baseline")
    monkeypatch.setattr(baseline, "select_device", lambda name: torch.device("meta"))
    state = baseline.create_train_state(SPEC.replace(width=8), Compute())
    for adam in (state.generator_optimizer, state.discriminator_optimizer):
        moments = list(adam.state.values())
        assert len(moments) == len(adam.param_groups[0]["params"])
        assert {(m["step"].device.type, m["exp_avg"].device.type) for m in moments} == {
            ("cpu", "meta")
        }
