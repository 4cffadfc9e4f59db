"""How far what an implementation shows is from the reference, and what rounding allows."""

import json
import math
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from shared.explain.catalogue import INITIAL_STAGE, KINDS
from shared.explain.observations import Group, Sides, Under, reference_arrays
from shared.explain.probes import Probe
from shared.interface import Array, Arrays
from shared.reference import comparison
from shared.reference.comparison import drifting_arrays, relative_l2
from shared.spec.streams import stream

# Relative L2 of any array. What rounding was measured to do at most in right runs of the three
# frameworks (`python -m tests.apparatus.explain_accuracy --right 100`) is at most a fifth of the
# bounds: in float64 1.3e-12; in float32 7e-6 of outputs, 2e-4 of gradients and moments (of conv28,
# whose halves cancel), 1.5e-3 of a parameter's move where its gradient is of the size of Adam's
# epsilon. The smallest planted fault shows at 1.5e-3, in a running variance.
BOUNDS = {"float64": 1e-10, "float32": 5e-5}
INITIAL_BOUND = 1e-6  # the same draws, rounded to float32 at most
ROUNDINGS = 30.0  # of a step, in float32, each as large as one of its weights
LEAST_LOSS = 1e-3  # a loss near 0 has no relative error; below this it is measured against this


@dataclass(frozen=True)
class Distance:
    """How far two arrays are apart, and the element that differs most.

    `relative` is relative L2, `largest` the largest absolute difference, `ulp` in units of the last
    place. Of arrays of two shapes the numbers of an element are nan.
    """

    relative: float = math.nan
    largest: float = math.nan
    ulp: float = math.nan
    element: tuple[int, ...] = ()
    received: float = math.nan
    expected: float = math.nan


def distance(received: Array, expected: Array, dtype: str) -> Distance:
    """Return the distance of two arrays.

    nan against nan and an infinity against itself differ by 0, against anything else by inf.
    """
    if received.shape != expected.shape:
        return Distance()
    with np.errstate(invalid="ignore"):
        apart = np.abs(np.subtract(*_without_common(received, expected)))
    apart = np.where(np.isnan(apart), np.inf, apart)
    element = tuple(int(i) for i in np.unravel_index(np.argmax(apart), apart.shape))
    found, wanted = float(received[element]), float(expected[element])
    exact = Fraction(wanted) if math.isfinite(wanted) else wanted
    relative = relative_l2(received, expected) if apart[element] else 0.0
    ulp = comparison.ulp_error(found, exact, dtype)
    return Distance(relative, float(apart[element]), ulp, element, found, wanted)


@dataclass(frozen=True)
class Divergence(Distance):
    """An array that differs: where it is, and how far it is from what was expected."""

    stage: str = ""
    probe: str = ""
    array: str = ""


@dataclass(frozen=True)
class Comparison:
    """Comparing with the reference in one dtype; `bound` is that of networks' outputs.

    `rounded` are stages that are compared in float32 whatever the bound of others.
    """

    dtype: str
    bound: float
    rounded: frozenset[str] = frozenset()

    def allowed(self, stage: str) -> float:
        """Return the bound of a stage."""
        if stage == INITIAL_STAGE:
            return INITIAL_BOUND
        bound = BOUNDS["float32"] if stage in self.rounded else self.bound
        return bound * (KINDS[stage].float32 if bound > BOUNDS["float64"] else 1.0)

    def differences(self, group: Group, under: Under) -> dict[str, float]:
        """Return the relative difference of every array that both have; inf for another shape.

        What arithmetic does not determine is left out (`shared.reference.comparison`).
        """
        spec, stage, received = group.probe.spec, group.stage, group.arrays
        wanted = dict(reference_arrays(stage, group.probe, under))
        # What was not received counts as right: another array may be measured against it.
        actual = dict(wanted)
        same_shape = [n for n in received if n in wanted and received[n].shape == wanted[n].shape]
        for name in same_shape:
            actual[name], wanted[name] = _without_common(received[name], wanted[name])
        if stage.startswith("gradients"):
            free = reference_arrays(stage, group.probe, under, is_clipped=False)
            ways = (comparison.gradient_differences(spec, actual, wanted | x) for x in ({}, free))
            found = min(ways, key=lambda way: sum(way[name] for name in same_shape if name in way))
        elif stage.startswith("updated parameters"):
            found = _update_differences(group.probe, actual, wanted, self.dtype)
        elif stage.startswith(("Adam's", "BN")):
            found = comparison.state_differences(spec, actual, wanted)
        else:
            least = LEAST_LOSS if stage.startswith("losses") else 0.0
            sizes = {name: np.maximum(np.abs(wanted[name]), least) for name in same_shape}
            found = {n: relative_l2(actual[n], wanted[n], sizes[n]) for n in same_shape}
        found |= dict.fromkeys(wanted.keys() & received.keys() - set(same_shape), math.inf)
        return {n: d if math.isfinite(d := found[n]) else math.inf for n in received if n in found}

    def differing(self, group: Group, under: Under) -> list[str]:
        """Return the names of the arrays beyond the bound, in their order."""
        allowed, found = self.allowed(group.stage), self.differences(group, under)
        return [name for name, difference in found.items() if not difference <= allowed]

    def is_rounding(self, group: Group, sides: Sides) -> bool:
        """Whether rounding weights to float32 does nearly as much as what differs, up to 0.1."""
        probe, moved = group.probe, Counter[str]()
        for draw in range(4 if self.bound > BOUNDS["float64"] else 0):
            noise = stream(draw, "explain/nudge").standard_normal
            nudged = {n: a * (1.0 + 2.0**-24 * noise(a.shape)) for n, a in probe.arrays.items()}
            nudged |= {n: a for n, a in probe.arrays.items() if n.endswith("/step")}
            other = reference_arrays(group.stage, replace(probe, arrays=nudged), sides)
            moved |= Counter(self.differences(replace(group, arrays=other), sides))
        most = {n: max(self.allowed(group.stage), min(0.1, ROUNDINGS * moved[n])) for n in moved}
        return all(d <= most.get(n, 0.0) for n, d in self.differences(group, sides).items())

    def compare(self, group: Group, under: Under) -> tuple[dict[str, float], Divergence | None]:
        """Return the differences, and the first array beyond the bound, None where all are within.

        First, not furthest off: what comes behind it may be off because of it.
        """
        found = self.differences(group, under)
        name = next((n for n, d in found.items() if not d <= self.allowed(group.stage)), None)
        if name is None:
            return found, None
        expected = reference_arrays(group.stage, group.probe, under)[name]
        apart = vars(distance(group.arrays[name], expected, self.dtype)) | {"relative": found[name]}
        return found, Divergence(**apart, stage=group.stage, probe=group.probe.name, array=name)


def _without_common(actual: Array, expected: Array) -> tuple[Array, Array]:
    """Return both with 0 where they hold the same infinity or are both nan: they agree there."""
    same = ~np.isfinite(expected) & ((actual == expected) | (np.isnan(actual) & np.isnan(expected)))
    return np.where(same, 0.0, actual), np.where(same, 0.0, expected)


def _update_differences(
    probe: Probe, actual: Arrays, expected: Arrays, dtype: str
) -> dict[str, float]:
    """Return the differences over how far a parameter has moved, less its own rounding."""
    drifting = set(drifting_arrays(probe.spec))
    found = {}
    for name, wanted in expected.items():
        # Adam divides a gradient by its own size: of one number, whose parts cancel, it makes a
        # move of rounding. Its moments are compared.
        if name in drifting or wanted.size == 1:
            continue
        rate = getattr(probe.spec, f"{name.split('/')[0]}_optimizer").learning_rate
        # Never over less than a tenth of the learning rate for each element.
        least = 0.1 * rate * math.sqrt(wanted.size)
        moved = max(float(np.linalg.norm(wanted - probe.arrays[name])), least)
        rounding = float(np.finfo(dtype).eps * np.linalg.norm(wanted))
        found[name] = max(0.0, float(np.linalg.norm(actual[name] - wanted)) - rounding) / moved
    return found


def json_data(value: Any) -> Any:
    """Return plain JSON data; nan and infinities, which JSON does not have, become text."""
    return json.loads(json.dumps(value, default=vars), parse_constant=lambda x: str(float(x)))
