"""Fitting numbers of `Conventions` to one array that an implementation shows, by Gauss-Newton."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.explain.distance import allowed, differences
from shared.explain.observations import Group, ReferenceObserver
from shared.explain.traps import FITTED, as_conventions
from shared.spec import Conventions

FIT_STEPS = 12
# The derivative is taken over this part of a number.
FIT_PART = 1e-4


@dataclass(frozen=True)
class Target:
    """The array that is fitted, and how near the reference has to come to it."""

    reference: ReferenceObserver
    group: Group
    name: str
    dtype: str
    bound: float

    @property
    def actual(self) -> np.ndarray:
        """The implementation's array."""
        return self.group.arrays[self.name]

    def agrees(self, conventions: Conventions) -> bool:
        """Return whether the reference is within the bound under these conventions."""
        expected = self.reference.arrays(self.group.stage, self.group.probe, conventions)
        found = differences(self.group, expected, self.dtype)
        return found.get(self.name, math.inf) <= allowed(self.group.stage, self.bound)

    def expected(
        self, base: Conventions, fields: Sequence[str], theta: np.ndarray
    ) -> np.ndarray | None:
        """Return the reference's array where the fields have these values; None if not finite."""
        conventions = as_conventions(base, fields, theta)
        arrays = self.reference.arrays(self.group.stage, self.group.probe, conventions)
        array = arrays.get(self.name)
        return array if array is not None and np.isfinite(array).all() else None


def fit(base: Conventions, fields: Sequence[str], target: Target) -> Conventions | None:
    """Return `base` with the numbers that reproduce the array, None where none are found.

    As round as they agree.
    """
    spec, sizes = target.group.probe.spec, []
    theta = np.array([FITTED[field].start(base, spec) for field in fields])
    for number in range(FIT_STEPS):
        here = target.expected(base, fields, theta)
        if here is None or here.shape != target.actual.shape:
            return None
        sizes.append(float(np.linalg.norm(target.actual - here)))
        if number >= 4 and sizes[-1] > 0.5 * sizes[-4]:
            return None  # no solution: a right fit converges quadratically
        conventions = as_conventions(base, fields, theta)
        if number and target.agrees(conventions):
            return _rounded(conventions, fields, target)
        step = _gauss_newton(base, fields, theta, target, target.actual - here)
        if step is None:
            return None
        theta = theta + step
    return None


def _gauss_newton(
    base: Conventions,
    fields: Sequence[str],
    theta: np.ndarray,
    target: Target,
    residual: np.ndarray,
) -> np.ndarray | None:
    columns = []
    for i in range(len(fields)):
        shift = np.zeros_like(theta)
        shift[i] = FIT_PART * max(1e-2, abs(theta[i]))
        ahead = target.expected(base, fields, theta + shift)
        behind = target.expected(base, fields, theta - shift)
        if ahead is None or behind is None:
            return None
        columns.append(((ahead - behind) / (2.0 * shift[i])).ravel())
    jacobian = np.stack(columns, axis=1)
    if not np.isfinite(jacobian).all() or not jacobian.any(axis=0).all():
        return None  # a field that this array does not depend on
    step = np.linalg.lstsq(jacobian, residual.ravel(), rcond=None)[0]
    largest = np.array([FITTED[field].largest_step for field in fields])
    return np.clip(step, -largest, largest)


def _rounded(fitted: Conventions, fields: Sequence[str], target: Target) -> Conventions:
    """Return the same with the roundest numbers that agree as well."""
    for field in fields:
        value = float(getattr(fitted, field))
        for digits in (1, 2, 3, 4):
            rounder = fitted.replace(**{field: float(f"{value:.{digits - 1}e}")})
            if target.agrees(rounder):
                fitted = rounder
                break
    return fitted
