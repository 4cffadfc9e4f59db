"""Precisions and modes: what they may change, and what is refused."""

import importlib
from typing import Any

import numpy as np
import pytest

from benchmarks.worker import gate
from shared.interface import Implementation
from shared.reference.comparison import state_differences
from shared.spec import SYSTEMS, SystemSpec
from shared.spec.compute import Compute
from tests.tiers import SLOW_IN_TF_AND_JAX

MODULES = {"pytorch": "pytorch_impl", "tf": "tf_impl", "jax": "jax_impl"}


def one_step(name: str, problem: gate.GateProblem, **settings: str) -> tuple[dict, dict]:
    """Return the losses and the arrays after the gate's step."""
    train = importlib.import_module(f"{MODULES[name]}.train")
    checkpoint = importlib.import_module(f"{MODULES[name]}.checkpoint")
    places = importlib.import_module(f"{MODULES[name]}.state")
    compute = Compute(**settings)
    state = train.create_train_state(problem.spec, compute, arrays=problem.start)
    images = places.images_to_device(state, problem.real_images)
    metrics = train.train_step(state, images, places.latents_to_device(state, problem.latents))
    return {n: float(v) for n, v in metrics.items()}, checkpoint.export_state(state)


@pytest.mark.parametrize(
    "system", ["mlp28", *(pytest.param(s, marks=SLOW_IN_TF_AND_JAX) for s in ("dcgan64", "conv28"))]
)
def test_bfloat16_is_near_and_not_the_same(implementation: Implementation, system: str) -> None:
    """Losses within 2e-2 (measured 1.2e-2 at most) of the reference, and beyond float32's 5e-6.

    Weights, statistics and moments stay in float32.
    """
    problem = gate.gate_problem(SYSTEMS[system].replace(loss="lsgan"))
    expected = gate.truth(problem)
    metrics, arrays = one_step(implementation.name, problem, precision="bfloat16")
    differences = [
        abs(metrics[name] - value) / max(1.0, abs(value))
        for name, value in expected.metrics.items()
    ]
    assert gate.LOSS_BOUND < max(differences) <= 2e-2
    assert {str(a.dtype) for a in arrays.values()} == {"float32", "int64"}
    assert all(np.isfinite(array).all() for array in arrays.values())


PRODUCTS = {"pytorch": "_kernel_gradient", "tf": "conv", "jax": "_product"}
"""What of `fast` the deep layers alone are computed by in bfloat16 on a CPU."""


@pytest.mark.slow  # a whole step of full width
def test_the_gate_in_bfloat16_holds_the_products_of_deep_layers(
    implementation: Implementation, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = gate.gate_problem(SYSTEMS["dcgan64"], "bfloat16")
    expected, name = gate.truth(problem), implementation.name
    fast = importlib.import_module(f"{MODULES[name]}.fast")
    right, called = getattr(fast, PRODUCTS[name]), []

    def passes(factor: float) -> bool:
        def scaled(*given: Any) -> Any:
            called.append(given)
            return right(*given) * factor

        monkeypatch.setattr(fast, PRODUCTS[name], scaled)
        if name == "jax":  # which has compiled the step already
            importlib.import_module("jax").clear_caches()
        found = one_step(name, problem, precision="bfloat16")
        return gate.compare(problem, expected, *found, "bfloat16")["passed"]

    assert passes(1.0)
    assert called
    assert not passes(4.0)


@pytest.mark.slow
# Of torch.compile itself, which calls torch.jit and looks at gradients that are not there.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "mode", "system"),
    [("pytorch", "compile", "mlp28"), ("tf", "xla", "mlp28"), ("tf", "xla", "conv28")],
)
def test_a_mode_changes_nothing_but_the_time(name: str, mode: str, system: str) -> None:
    """The gate's bounds, which eager steps are held to."""
    pytest.importorskip({"pytorch": "torch", "tf": "tensorflow"}[name])
    problem = gate.gate_problem(SYSTEMS[system])
    metrics, arrays = one_step(name, problem, mode=mode)
    assert gate.compare(problem, gate.truth(problem), metrics, arrays)["passed"]


def test_a_recorded_step_is_the_step() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("mode cudagraph needs a GPU")
    problem = gate.gate_problem(SYSTEMS["dcgan64"])
    metrics, arrays = one_step("pytorch", problem, mode="cudagraph", device="gpu")
    differences = state_differences(problem.spec, arrays, gate.truth(problem).arrays)
    assert max(differences.values()) <= gate.ARRAY_BOUND
    assert metrics.keys() == gate.truth(problem).metrics.keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"precision": "float16"},
            "unknown precision 'float16'; expected one of float32, tf32, bfloat16",
        ),
        ({"precision": "tf32"}, "precision tf32 exists on GPUs only"),
        ({"mode": "fast"}, "unknown mode 'fast'; expected"),
    ],
)
def test_what_cannot_be_had_is_refused(
    implementation: Implementation, settings: dict, message: str
) -> None:
    require_refused(implementation, SYSTEMS["dcgan64"].replace(width=2), message, **settings)


def test_bfloat16_needs_a_loss_and_weights_that_go_with_it(implementation: Implementation) -> None:
    spec = SYSTEMS["mlp28"].replace(width=2)
    require_refused(implementation, spec, "bce_probs needs probabilities", precision="bfloat16")
    require_refused(
        implementation,
        spec.replace(loss="bce"),
        "bfloat16 needs dtype float32, received float64",
        precision="bfloat16",
        dtype="float64",
    )


def require_refused(
    implementation: Implementation, spec: SystemSpec, message: str, **settings: str
) -> None:
    train = importlib.import_module(f"{MODULES[implementation.name]}.train")
    with pytest.raises(ValueError, match=message):
        train.create_train_state(spec, Compute(**settings))
