"""How far what an implementation shows is from the reference, and what rounding allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from shared.explain.observations import ADAM_STAGE, FORWARD_STAGES, LOSS_STAGE, Group
from shared.explain.probes import Arrays, Probe
from shared.reference.differences import drifting_arrays, gradient_differences, state_differences
from shared.spec import SystemSpec

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24}

# Relative L2 of any array. What rounding was measured to do at most in right runs of the three
# frameworks (`python -m tests.explain_accuracy --right 100`) is at most a fifth of the bounds: in
# float64 1.3e-12; in float32 7e-6 of outputs, 2e-4 of gradients and moments (conv28's, whose halves
# cancel), 1.5e-3 of a parameter's move where its gradient is of the size of Adam's epsilon. The
# smallest planted fault shows at 1.5e-3, in a running variance.
BOUNDS = {"float64": 1e-10, "float32": 5e-5}
_IN_FLOAT32 = {
    "gradients of the discriminator": 20.0,
    "gradients of the generator": 20.0,
    "Adam's moments": 20.0,
    "updated parameters": 200.0,
}


def allowed(stage: str, bound: float) -> float:
    """Return the bound of a stage where that of outputs is `bound`."""
    return bound * (_IN_FLOAT32.get(stage, 1.0) if bound > BOUNDS["float64"] else 1.0)


# A loss near 0 has no relative error; below this it is measured against this.
LEAST_LOSS = 1e-3


@dataclass(frozen=True)
class Parting:
    """The array of a stage that is furthest off."""

    stage: str
    probe: str
    name: str
    relative: float
    received: np.ndarray
    expected: np.ndarray


def differences(group: Group, expected: Arrays, dtype: str) -> dict[str, float]:
    """Return the relative difference of every array that both have; inf for another shape.

    What arithmetic does not determine is left out (`shared.reference.differences`).
    """
    actual = {name: array for name, array in group.arrays.items() if name in expected}
    wrong = {n: math.inf for n, a in actual.items() if a.shape != expected[n].shape}
    actual = {name: array for name, array in actual.items() if name not in wrong}
    pairs = {name: _without_common(array, expected[name]) for name, array in actual.items()}
    actual = {name: pair[0] for name, pair in pairs.items()}
    expected = {name: pair[1] for name, pair in pairs.items()}
    spec = group.probe.spec
    if group.stage in (*FORWARD_STAGES, LOSS_STAGE, ADAM_STAGE):
        found = {name: _relative(actual[name], expected[name]) for name in actual}
    elif group.stage == "losses of a step":
        found = {n: _relative(actual[n], expected[n], LEAST_LOSS) for n in actual}
    elif group.stage.startswith("gradients"):
        found = gradient_differences(spec, actual, expected)
    elif group.stage == "updated parameters":
        found = _update_differences(group.probe, actual, expected, dtype)
    else:
        found = state_differences(spec, actual, expected)
    return wrong | {n: d if math.isfinite(d) else math.inf for n, d in found.items()}


def _without_common(actual: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both with 0 where they hold the same infinity or are both nan: they agree there."""
    same = ~np.isfinite(expected) & ((actual == expected) | (np.isnan(actual) & np.isnan(expected)))
    return np.where(same, 0.0, actual), np.where(same, 0.0, expected)


def _relative(actual: np.ndarray, expected: np.ndarray, least: float = 0.0) -> float:
    """Return the relative L2 difference, against a size of `least` at least."""
    difference, size = (float(np.linalg.norm(x)) for x in (actual - expected, expected))
    if difference == 0.0:
        return 0.0
    return difference / max(size, least) if max(size, least) else math.inf


def _update_differences(
    probe: Probe, actual: Arrays, expected: Arrays, dtype: str
) -> dict[str, float]:
    """Return the differences against how far the parameter has moved, less its own rounding.

    The yardstick is never below a tenth of the learning rate for each element.
    """
    spec, before = probe.spec, probe.arrays
    drifting = set(drifting_arrays(spec))
    found = {}
    for name, wanted in expected.items():
        # Adam divides a gradient by its own size: of one number, whose parts cancel, it makes a
        # move of rounding. Its moments are compared.
        if name in drifting or wanted.size == 1:
            continue
        received = actual[name]
        rate = _learning_rate(spec, name)
        least = 0.1 * rate * math.sqrt(wanted.size)
        moved = max(float(np.linalg.norm(wanted - before[name])), least)
        rounding = 2.0 * UNIT_ROUNDOFF[dtype] * float(np.linalg.norm(wanted))
        found[name] = max(0.0, float(np.linalg.norm(received - wanted)) - rounding) / moved
    return found


def _learning_rate(spec: SystemSpec, name: str) -> float:
    network = name.split("/", 1)[0]
    return getattr(spec, f"{network}_optimizer").learning_rate


def worst(group: Group, expected: Arrays, found: dict[str, float], bound: float) -> Parting | None:
    """Return the first array of a group that is beyond the bound, None where all are within.

    First, not furthest off: what stands behind it may be off because of it.
    """
    for name, difference in found.items():
        if not difference <= allowed(group.stage, bound):
            return Parting(
                group.stage,
                group.probe.name,
                name,
                difference,
                group.arrays[name],
                expected[name],
            )
    return None
