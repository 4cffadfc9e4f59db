"""The equivalence gate: one step must agree with the NumPy truth before anything is timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.plan.configuration import GATE_BATCH_SIZE
from benchmarks.worker.pooled_differences import POOLED_BOUNDS, pooled_bounds, pooled_differences
from shared.fixtures.make_network import representative_state
from shared.reference.differences import state_differences
from shared.reference.step import StepResult, train_step
from shared.spec import Conventions, SystemSpec
from shared.spec.streams import initial_state, latents, stream

GATE_WIDTH = 8

# float32 agrees with float64 only where no pre-activation lies so close to zero that rounding
# moves it across the kink of a ReLU, and no gradient so close that Adam's first step, which is
# its sign, turns round. Among half a million pre-activations there often is one: of seeds 0-3 two
# differed by 1e-2 in some tensor although nothing was wrong. With this seed, of 500 tried, none is
# nearer to zero than 8.4e-6 of its layer's root mean square, for every loss and both heads.
GATE_SEED = 221

# Both other architectures, and all of them in less than float32, start as in the middle of
# training instead: their small initial weights would magnify rounding until it hides faults. Of 40
# seeds this one's pre-activations are as far from zero as any, 1.4e-5, for every loss.
TRAINED_SEED = 19
TRAINED_BATCH_SIZE = 16

# Relative, for each loss. Reached on a CPU, all frameworks, losses and heads: 1.8e-6. The smallest
# fault that moves a loss of dcgan64 (Adam's epsilon inside the root) moves it by 1.8e-5; Adam's
# smaller ones are left to the arrays.
LOSS_BOUND = 5e-6
# L2-relative, for each array of the state after the step: parameters, running statistics, Adam's
# moments. Reached: 4.3e-6 (moments; parameters 2.3e-6), conv28 8.0e-6, mlp28 1.8e-6. The smallest
# fault that Conventions can plant in dcgan64 is 2.1e-4 (running variance biased), then 3.8e-4
# (Adam's epsilon 1e-7). Not parameters alone: Adam's first step hides how large a gradient is, and
# a halved loss moves none by 1e-4.
ARRAY_BOUND = 1e-4


@dataclass(frozen=True)
class GateProblem:
    """A narrow system, where its one step starts, and its float32 inputs: images NHWC, latents."""

    spec: SystemSpec
    seed: int
    start: dict[str, np.ndarray]
    real_images: np.ndarray
    latents: np.ndarray


def gate_problem(spec: SystemSpec, precision: str = "float32") -> GateProblem:
    """Return the gate's narrow version of a system: same loss, same head, same layers."""
    is_dcgan = spec.architecture == "dcgan64" and precision == "float32"
    seed = GATE_SEED if is_dcgan else TRAINED_SEED
    batch_size = GATE_BATCH_SIZE if is_dcgan else TRAINED_BATCH_SIZE
    narrow = spec.replace(width=GATE_WIDTH, batch_size=batch_size)
    start = initial_state(narrow, seed) if is_dcgan else representative_state(narrow, seed)
    count = narrow.discriminator_steps * batch_size
    images = stream(seed, "gate_images").uniform(*narrow.image_range, (count, *narrow.image_shape))
    z = latents(narrow, seed, 0, narrow.latent_batches * batch_size, purpose="gate_latents")
    return GateProblem(narrow, seed, start, images.astype(np.float32), z.astype(np.float32))


def truth(problem: GateProblem, conventions: Conventions | None = None) -> StepResult:
    """Return what the NumPy reference makes of the problem, in float64."""
    start = {n: a.astype(np.float64) for n, a in problem.start.items()}
    inputs = (problem.real_images.astype(np.float64), problem.latents.astype(np.float64))
    return train_step(problem.spec, start, *inputs, conventions or Conventions())


def compare(
    problem: GateProblem,
    expected: StepResult,
    metrics: Mapping[str, float],
    arrays: dict[str, np.ndarray],
    precision: str = "float32",
) -> dict[str, Any]:
    """Return the gate's verdict and figures as JSON data; `passed` is the verdict.

    `metrics` are the losses that the step returned and `arrays` the state after it, which may be
    as far from the truth as the `precision` that was asked for makes them.
    """
    losses = {
        name: abs(metrics[name] - value) / abs(value) if value else np.inf
        for name, value in expected.metrics.items()
    }
    loss_bound = LOSS_BOUND if precision == "float32" else POOLED_BOUNDS[precision]["losses"]
    if precision == "float32":
        differences = state_differences(problem.spec, arrays, expected.arrays)
        bounds = dict.fromkeys(differences, ARRAY_BOUND)
    else:  # of kinds of arrays
        differences = pooled_differences(problem.spec, problem.start, arrays, expected.arrays)
        bounds = pooled_bounds(precision, differences)
    worst_loss = _worst(losses, dict.fromkeys(losses, loss_bound))
    worst_array = _worst(differences, bounds)
    return {
        "passed": not (_is_beyond(worst_loss) or _is_beyond(worst_array)),
        "seed": problem.seed,
        "width": problem.spec.width,
        "batch_size": problem.spec.batch_size,
        "worst_loss": worst_loss,
        "worst_array": worst_array,
    }


def _worst(differences: Mapping[str, float], bounds: Mapping[str, float]) -> dict[str, Any]:
    # JSON has no infinity, and NaN would compare as no difference at all.
    finite = {n: min(d, 1e300) if np.isfinite(d) else 1e300 for n, d in differences.items()}
    name = max(finite, key=lambda name: finite[name] / bounds[name])
    return {"name": name, "difference": float(finite[name]), "bound": bounds[name]}


def _is_beyond(worst: Mapping[str, Any]) -> bool:
    return not worst["difference"] <= worst["bound"]


def describe_failure(check: Mapping[str, Any]) -> str:
    """Return one line on a comparison that did not pass."""
    found = [
        f"{worst['name']} differs by {worst['difference']:.1e}, allowed is {worst['bound']:.0e}"
        for worst in (check["worst_loss"], check["worst_array"])
        if _is_beyond(worst)
    ]
    return f"one step does not agree with the NumPy reference: {'; '.join(found)}"
