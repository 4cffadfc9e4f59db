"""What a trap of docs/porting.md is, and what several of them need."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# What the ports that are held right must reach: float64 rounding through one step.
BOUND = 1e-11


@dataclass(frozen=True)
class Trap:
    """One row of the guide: `naive` and `right` return a relative error; inf is another shape.

    `framework` is the one that the naive port is written in; "" where any port can fall in.
    """

    name: str
    naive: Callable[[], float]
    right: Callable[[], float]
    bound: float = BOUND
    framework: str = ""


def tensorflow() -> tuple:
    return importlib.import_module("tensorflow"), importlib.import_module("keras")


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape)
