"""How far an answer may be from the truth (bounds.toml), and how its error is measured."""

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from shared.interface import Array
from shared.reference.comparison import relative_l2, ulp_error
from shared.spec.layers import Initializer, Parameter


@dataclass(frozen=True)
class Bound:
    """The largest error that passes, its unit and its derivation."""

    limit: float
    unit: str
    derivation: str


_TABLE = tomllib.loads(Path(__file__).with_name("bounds.toml").read_text("utf-8"))


def bound_of(kind: str, dtype: str = "", architecture: str = "") -> Bound:
    """Return the bound of a kind of array, a table of bounds.toml."""
    entry, own = _TABLE[kind], f"{architecture}_{dtype}"
    if own in entry:
        return Bound(entry[own], entry["unit"], _TABLE["derivations"][own])
    limit = entry[dtype] if dtype else entry["limit"]
    return Bound(limit, entry["unit"], _TABLE["derivations"][entry["derivation"]])


EXACT, KOLMOGOROV = bound_of("exact"), bound_of("kolmogorov")


# The error of an answer against its truth, in the unit of its bound; nan where it has none.


def ulp(actual: Array, truth: Array, *, dtype: str, floor: float = 0.0) -> float:
    """Return the largest error of any number in ULP; the truth is an array of ExactNumber."""
    pairs = zip(np.ravel(actual), np.ravel(truth), strict=True)
    return max(ulp_error(number, exact, dtype, floor=floor) for number, exact in pairs)


def relative(actual: Array, truth: Array, *, sizes: Array | float = 1.0) -> float:
    """Return the relative L2 error, every number first divided by its own size."""
    return relative_l2(np.asarray(actual, np.float64) / sizes, truth / sizes)


def different(actual: Array, truth: Array) -> float:
    """Return how many numbers are not the same."""
    return float(np.count_nonzero(actual != truth))


def absolute_below_one(actual: Array, truth: Array) -> float:
    """Return |actual - truth| over max(1, |truth|)."""
    return float(abs(actual - truth) / max(1.0, abs(truth)))


def kolmogorov(actual: Array, truth: Parameter) -> float:
    """Return √n times Kolmogorov's distance from the parameter's law; inf outside its support."""
    law = truth.initializer
    if law.distribution == "uniform_fan_in":
        law = Initializer("uniform", 0.0, truth.fan_in**-0.5)
    laws = {"uniform": stats.uniform(-1.0, 2.0), "truncated_normal": stats.truncnorm(-2.0, 2.0)}
    standard = laws.get(law.distribution, stats.norm())
    drawn = (actual.astype(np.float64).ravel() - law.mean) / law.scale
    # A float32 number may lie outside by its own rounding.
    if not np.isfinite(drawn).all() or np.abs(drawn).max() > standard.support()[1] + 1e-6:
        return math.inf
    found = stats.ks_1samp(drawn, standard.cdf, method="asymp")
    return math.sqrt(drawn.size) * float(found.statistic)
