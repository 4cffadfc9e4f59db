"""Before anything is timed: the equivalence gate, and the probe of the precision.

One step must agree with the NumPy truth, and operations must have the precision that was asked for.
In float32 each array must agree; in less, all arrays of a kind of one network together.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.plan.configuration import GATE_BATCH_SIZE
from benchmarks.worker.workloads import Operation
from shared.fixtures.network import representative_state
from shared.interface import Array, Arrays
from shared.reference.comparison import drifting_arrays, relative_l2, state_differences
from shared.reference.layers import conv_forward
from shared.reference.step import StepResult, train_step
from shared.spec import SYSTEMS, Conventions, SystemSpec
from shared.spec.streams import initial_state, latents, stream

GATE_WIDTH = 8
# Seeds that keep every pre-activation away from the kink of a ReLU, and every gradient from zero,
# where Adam's first step, its sign, turns round. Of dcgan64 in float32, by image size: width and
# seed; in units of the layer's root mean square none is nearer than 5.7e-6, 8.4e-6 (the best of 500
# seeds), 2.7e-6 and 6.3e-6 (the best of 1,360). Larger images have more, so the networks are
# narrower. All but 64 pixels start as in the middle of training, as other systems do.
GATES = {32: (8, 10), 64: (GATE_WIDTH, 221), 128: (2, 1), 256: (1, 1301)}
# Small initial weights would magnify rounding until it hides faults. The best of 40 seeds: 1.4e-5.
TRAINED_SEED, TRAINED_BATCH_SIZE = 19, 16
# In bfloat16 deep layers have ways of their own (`fast`): networks are as wide as they are timed.
WIDEST, BFLOAT16_SEED = 64, 20  # of images of 64x64, of larger ones as deep; no loss is near 0

# docs/benchmarks.md#bounds-of-the-gate has what was reached, and the smallest faults beside it.
LOSS_BOUND = 5e-6
"""Relative, for each loss, in float32."""
ARRAY_BOUND = 1e-4
"""L2-relative, for each array of the state after the step, in float32. Not parameters alone: Adam's
first step hides how large a gradient is, and a halved loss moves none by 1e-4."""
POOLED_BOUNDS: dict[str, dict[str, float]] = {
    "tf32": {"losses": 1.2e-3, "statistics": 7.5e-4, "moments": 0.13, "updates": 0.2},
    "bfloat16": {"losses": 6e-2, "statistics": 5e-3, "moments": 0.4, "updates": 0.45},
}
"""Of all arrays of a kind of one network. The second moments are left out: a step adds a thousandth
of a square to them."""
KINDS = {"mean": "statistics", "var": "statistics", "m": "moments"}

# The relative L2 error of a sum of random products is that of rounding its factors: 1e-7 to 1e-6 in
# float32, 2.9e-4 in TF32 or 7.7e-4 truncated, 2.35e-3 in bfloat16. The limits are geometric means.
FLOAT32_BELOW = 1.7e-5
TF32_BELOW = 1.3e-3
# Of a kind that a GPU takes its tensor cores for, and the discriminator's; small enough for NumPy.
PRODUCT_SHAPES = ((256, 512), (512, 256))
CONVOLUTION_SHAPES = ((8, 16, 16, 64), (4, 4, 64, 128))


class GateProblem(NamedTuple):
    """A small system, where its one step starts, and its float32 inputs: images NHWC, latents."""

    spec: SystemSpec
    seed: int
    start: Arrays
    real_images: Array
    latents: Array


def gate_problem(spec: SystemSpec, precision: str = "float32") -> GateProblem:
    """Return the gate's small version of a system, with the channels that its seed is for."""
    is_dcgan = spec.architecture == "dcgan64" and precision == "float32"
    width, seed = GATES[spec.image_size] if is_dcgan else (GATE_WIDTH, TRAINED_SEED)
    if precision == "bfloat16":
        width, seed = min(spec.width, WIDEST * 64 // max(spec.image_size, 64)), BFLOAT16_SEED
    batch_size = GATE_BATCH_SIZE if is_dcgan else TRAINED_BATCH_SIZE
    narrow = spec.replace(width=width, batch_size=batch_size, channels=SYSTEMS[spec.name].channels)
    is_fresh = is_dcgan and spec.image_size == 64
    start = initial_state(narrow, seed) if is_fresh else representative_state(narrow, seed)
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
    arrays: Arrays,
    precision: str = "float32",
) -> dict[str, Any]:
    """Return the gate's verdict and figures as JSON data; `passed` is the verdict.

    `metrics` are the losses that the step returned and `arrays` the state after it, which may be
    as far from the truth as the `precision` that was asked for makes them.
    """
    largest = max(map(abs, expected.metrics.values()))
    losses = {}
    for name, value in expected.metrics.items():
        # TF32 that truncates is biased: a loss close to zero, as lsgan's may be, is off by 1 %.
        scale = largest if precision == "tf32" else abs(value)
        losses[name] = abs(metrics[name] - value) / scale if value else np.inf
    if precision == "float32":
        differences = state_differences(problem.spec, arrays, expected.arrays)
        bounds = dict.fromkeys(losses, LOSS_BOUND) | dict.fromkeys(differences, ARRAY_BOUND)
    else:
        of_kinds = POOLED_BOUNDS[precision]
        differences = _pooled_differences(problem, arrays, expected.arrays)
        # A counter has no bound to speak of.
        bounds = {name: of_kinds.get(name.rpartition("/")[2], 0.5) for name in differences}
        bounds |= dict.fromkeys(losses, of_kinds["losses"])
    worst = {"worst_loss": _worst(losses, bounds), "worst_array": _worst(differences, bounds)}
    return {
        "passed": all(w["difference"] <= w["bound"] for w in worst.values()),
        "seed": problem.seed,
        "width": problem.spec.width,
        "batch_size": problem.spec.batch_size,
        **worst,
    }


def _pooled_differences(problem: GateProblem, actual: Arrays, expected: Arrays) -> dict[str, float]:
    """Return ‖actual - expected‖ over the norm of what the step changed, for each network's kinds.

    Moments are relative to their own norm; a counter that differs is inf, under its own name.
    """
    drifting = set(drifting_arrays(problem.spec))
    differences: dict[str, float] = {}
    norms = defaultdict(list)
    for name, truth in expected.items():
        network, last = name.split("/", 1)[0].removesuffix("_optimizer"), name.rsplit("/", 1)[-1]
        if last == "step":
            differences[name] = 0.0 if np.array_equal(actual[name], truth) else np.inf
        elif name not in drifting and last != "v":
            origin = 0.0 if last == "m" else problem.start[name].astype(np.float64)
            error = np.asarray(actual[name], np.float64) - truth
            pair = np.linalg.norm(error), np.linalg.norm(truth - origin)
            norms[f"{network}/{KINDS.get(last, 'updates')}"].append(pair)
    pooled = {kind: np.linalg.norm(pairs, axis=0) for kind, pairs in norms.items()}
    return differences | {kind: float(error / change) for kind, (error, change) in pooled.items()}


def _worst(differences: Mapping[str, float], bounds: Mapping[str, float]) -> dict[str, Any]:
    # JSON has no infinity, and NaN would compare as no difference at all.
    finite = {n: min(d, 1e300) if np.isfinite(d) else 1e300 for n, d in differences.items()}
    name = max(finite, key=lambda name: finite[name] / bounds[name])
    return {"name": name, "difference": float(finite[name]), "bound": bounds[name]}


def describe_failure(check: Mapping[str, Any]) -> str:
    """Return one line on a comparison that did not pass."""
    found = [
        f"{worst['name']} differs by {worst['difference']:.1e}, allowed is {worst['bound']:.0e}"
        for worst in (check["worst_loss"], check["worst_array"])
        if worst["difference"] > worst["bound"]
    ]
    return f"one step does not agree with the NumPy reference: {'; '.join(found)}"


def probe(operations: dict[str, Operation]) -> dict[str, float]:
    """Return the relative L2 error of the matrix product and of the convolution."""
    draw = np.random.default_rng(0)
    truths: dict[str, tuple[Any, Operation]] = {
        "matmul": (PRODUCT_SHAPES, np.matmul),
        "convolution": (CONVOLUTION_SHAPES, lambda x, kernel: conv_forward(x, kernel, 2, 1)[0]),
    }
    errors = {}
    for name, (shapes, truth) in truths.items():
        left, right = (draw.standard_normal(shape).astype(np.float32) for shape in shapes)
        expected = truth(left.astype(np.float64), right.astype(np.float64))
        errors[name] = relative_l2(operations[name](left, right), expected)
    return errors


def precision_of(error: float) -> str:
    """Return the precision that makes such an error: float32, tf32 or bfloat16 (or worse)."""
    if error < FLOAT32_BELOW:
        return "float32"
    return "tf32" if error < TF32_BELOW else "bfloat16"


def effective_precision(
    asked: str, check: Mapping[str, Any], errors: Mapping[str, float]
) -> tuple[str, str]:
    """Return the precision of a step and how it shows: by the comparison for bfloat16.

    Else by the probe: the gate's narrow networks may be too small for a GPU to use TF32 in.
    """
    if asked == "bfloat16":
        worst = check["worst_array"]["difference"]
        exact = worst <= ARRAY_BOUND
        return "float32" if exact else "bfloat16", f"a step agrees to {worst:.0e}"
    found = {name: precision_of(error) for name, error in errors.items()}
    shown = ", ".join(f"{name} {error:.0e} ({found[name]})" for name, error in errors.items())
    kinds = set(found.values())
    return kinds.pop() if len(kinds) == 1 else "mixed", f"the errors of the probe are {shown}"
