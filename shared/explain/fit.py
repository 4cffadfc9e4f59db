"""Fitting numbers of `Conventions` to one array that an implementation shows, by Gauss-Newton."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from shared.explain.catalogue import FITTED
from shared.explain.distance import Comparison
from shared.explain.observations import Group
from shared.spec import Conventions

FIT_STEPS = 12
FIT_PART = 1e-4  # the derivative is taken over this part of a number


@dataclass(frozen=True)
class Fit:
    """Numbers `fields` of `base` that are fitted to the array `name` of a group.

    A point `theta` of a fit has a number for each field, or its logarithm.
    """

    base: Conventions
    fields: tuple[str, ...]
    comparison: Comparison
    group: Group
    name: str

    def solve(self) -> Conventions | None:
        """Return `base` with the roundest numbers that reproduce the array, None without any."""
        spec, received, sizes = self.group.probe.spec, self.group.arrays[self.name], []
        theta = np.array([FITTED[field].start(self.base, spec) for field in self.fields])
        for number in range(FIT_STEPS):
            here = self._array(theta)
            if here is None or here.shape != received.shape:
                return None
            sizes.append(float(np.linalg.norm(received - here)))
            if number >= 4 and sizes[-1] > 0.5 * sizes[-4]:
                return None  # no solution: a right fit converges quadratically
            if number and self._agrees(fitted := self._conventions(theta)):
                return self._rounded(fitted)
            step = self._gauss_newton(theta, received - here)
            if step is None:
                return None
            theta = theta + step
        return None

    def _conventions(self, theta: np.ndarray) -> Conventions:
        points = zip(self.fields, map(float, theta), strict=True)
        return self.base.replace(
            **{n: float(np.exp(t)) if FITTED[n].logarithmic else t for n, t in points}
        )

    def _array(self, theta: np.ndarray) -> np.ndarray | None:
        """Return the reference's array at a point; None if it is not finite."""
        array = self.comparison.expected(self.group, self._conventions(theta)).get(self.name)
        return array if array is not None and np.isfinite(array).all() else None

    def _agrees(self, conventions: Conventions) -> bool:
        found = self.comparison.differences(self.group, conventions)
        return found.get(self.name, math.inf) <= self.comparison.allowed(self.group.stage)

    def _gauss_newton(self, theta: np.ndarray, residual: np.ndarray) -> np.ndarray | None:
        columns = []
        for shift in np.diag(FIT_PART * np.maximum(1e-2, np.abs(theta))):
            ahead, behind = self._array(theta + shift), self._array(theta - shift)
            if ahead is None or behind is None:
                return None
            columns.append(((ahead - behind) / (2.0 * shift.sum())).ravel())
        jacobian = np.stack(columns, axis=1)
        if not np.isfinite(jacobian).all() or not jacobian.any(axis=0).all():
            return None  # a field that this array does not depend on
        step = np.linalg.lstsq(jacobian, residual.ravel(), rcond=None)[0]
        largest = np.array([FITTED[field].largest_step for field in self.fields])
        return np.clip(step, -largest, largest)

    def _rounded(self, fitted: Conventions) -> Conventions:
        """Return the same with the roundest numbers that agree as well."""
        for field in self.fields:
            value = getattr(fitted, field)
            rounder = (fitted.replace(**{field: float(f"{value:.{n}e}")}) for n in range(4))
            fitted = next(filter(self._agrees, rounder), fitted)
        return fitted
