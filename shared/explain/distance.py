"""How far what an implementation shows is from the reference, and what rounding allows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from shared.explain.observations import (
    ADAM_STAGE,
    FORWARD_STAGES,
    LOSS_STAGE,
    Group,
    ReferenceObserver,
)
from shared.explain.probes import Arrays, Probe
from shared.reference.comparison import ulp_error
from shared.reference.differences import drifting_arrays, gradient_differences, state_differences
from shared.spec import Conventions

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
LEAST_LOSS = 1e-3  # a loss near 0 has no relative error; below this it is measured against this


@dataclass(frozen=True)
class Divergence:
    """An array that differs, the element that differs most, and by how much.

    `relative` is relative L2, `largest` the largest absolute difference, `ulp` in units of the last
    place. Of arrays of two shapes `relative` is inf and the numbers of an element are nan.
    """

    stage: str
    probe: str
    array: str
    relative: float
    largest: float
    ulp: float
    element: tuple[int, ...]
    received: float
    expected: float

    @classmethod
    def of(
        cls,
        place: tuple[str, str, str],
        relative: float,
        received: np.ndarray,
        expected: np.ndarray,
        dtype: str,
    ) -> Divergence:
        """Return where an array differs from the expected one; `place`: stage, probe, name."""
        if received.shape != expected.shape:
            return cls(*place, relative, math.nan, math.nan, (), math.nan, math.nan)
        largest, ulp, element, found, wanted = worst_element(received, expected, dtype)
        return cls(*place, relative, largest, ulp, element, found, wanted)


def worst_element(
    received: np.ndarray, expected: np.ndarray, dtype: str
) -> tuple[float, float, tuple[int, ...], float, float]:
    """Return the largest difference, absolute and in ULP, its index and both numbers there.

    nan against nan and an infinity against itself differ by 0, against anything else by inf.
    """
    with np.errstate(invalid="ignore"):
        apart = np.abs(np.subtract(*_without_common(received, expected)))
    apart = np.where(np.isnan(apart), np.inf, apart)
    element = tuple(int(i) for i in np.unravel_index(np.argmax(apart), apart.shape))
    found, wanted = float(received[element]), float(expected[element])
    exact = Fraction(wanted) if math.isfinite(wanted) else wanted
    return float(apart[element]), ulp_error(found, exact, dtype), element, found, wanted


@dataclass(frozen=True)
class Comparison:
    """Comparing with the reference in one dtype; `bound` is that of networks' outputs."""

    dtype: str
    bound: float
    reference: ReferenceObserver = field(default_factory=ReferenceObserver)

    def allowed(self, stage: str) -> float:
        """Return the bound of a stage."""
        return self.bound * (_IN_FLOAT32.get(stage, 1.0) if self.bound > BOUNDS["float64"] else 1.0)

    def expected(self, group: Group, conventions: Conventions) -> Arrays:
        """Return what the reference has for a group under some conventions."""
        return self.reference.arrays(group.stage, group.probe, conventions)

    def differences(self, group: Group, conventions: Conventions) -> dict[str, float]:
        """Return the relative difference of every array."""
        return differences(group, self.expected(group, conventions), self.dtype)

    def compare(
        self, group: Group, conventions: Conventions
    ) -> tuple[dict[str, float], Divergence | None]:
        """Return the differences, and the first array beyond the bound, None where all are within.

        First, not furthest off: what comes behind it may be off because of it.
        """
        found = self.differences(group, conventions)
        name = next((n for n, d in found.items() if not d <= self.allowed(group.stage)), None)
        if name is None:
            return found, None
        place = group.stage, group.probe.name, name
        arrays = group.arrays[name], self.expected(group, conventions)[name]
        return found, Divergence.of(place, found[name], *arrays, self.dtype)


def differences(group: Group, expected: Arrays, dtype: str) -> dict[str, float]:
    """Return the relative difference of every array that both have; inf for another shape.

    What arithmetic does not determine is left out (`shared.reference.differences`).
    """
    received = {name: array for name, array in group.arrays.items() if name in expected}
    wrong = {n: math.inf for n, a in received.items() if a.shape != expected[n].shape}
    pairs = {
        name: _without_common(array, expected[name])
        for name, array in received.items()
        if name not in wrong
    }
    actual, wanted = ({name: pair[i] for name, pair in pairs.items()} for i in (0, 1))
    spec = group.probe.spec
    if group.stage in (*FORWARD_STAGES, LOSS_STAGE, ADAM_STAGE):
        found = {name: _relative(*pair) for name, pair in pairs.items()}
    elif group.stage == "losses of a step":
        found = {name: _relative(*pair, LEAST_LOSS) for name, pair in pairs.items()}
    elif group.stage.startswith("gradients"):
        found = gradient_differences(spec, actual, wanted)
    elif group.stage == "updated parameters":
        found = _update_differences(group.probe, actual, wanted, dtype)
    else:
        found = state_differences(spec, actual, wanted)
    return wrong | {n: d if math.isfinite(d) else math.inf for n, d in found.items()}


def _without_common(actual: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both with 0 where they hold the same infinity or are both nan: they agree there."""
    same = ~np.isfinite(expected) & ((actual == expected) | (np.isnan(actual) & np.isnan(expected)))
    return np.where(same, 0.0, actual), np.where(same, 0.0, expected)


def _relative(actual: np.ndarray, expected: np.ndarray, least: float = 0.0) -> float:
    difference, size = (float(np.linalg.norm(x)) for x in (actual - expected, expected))
    if difference == 0.0:
        return 0.0
    return difference / max(size, least) if max(size, least) else math.inf


def _update_differences(
    probe: Probe, actual: Arrays, expected: Arrays, dtype: str
) -> dict[str, float]:
    """Return the differences against how far the parameter has moved, less its own rounding.

    The reference scale is never below a tenth of the learning rate for each element.
    """
    drifting = set(drifting_arrays(probe.spec))
    found = {}
    for name, wanted in expected.items():
        # Adam divides a gradient by its own size: of one number, whose parts cancel, it makes a
        # move of rounding. Its moments are compared.
        if name in drifting or wanted.size == 1:
            continue
        network = name.split("/", 1)[0]
        rate = getattr(probe.spec, f"{network}_optimizer").learning_rate
        least = 0.1 * rate * math.sqrt(wanted.size)
        moved = max(float(np.linalg.norm(wanted - probe.arrays[name])), least)
        rounding = float(np.finfo(dtype).eps * np.linalg.norm(wanted))
        found[name] = max(0.0, float(np.linalg.norm(actual[name] - wanted)) - rounding) / moved
    return found
