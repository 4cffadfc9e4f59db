"""Our losses and those that the frameworks bring along, as formulas: a file for each framework."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shared.interface import Array
from shared.studies.accuracy import LOSSES, Evaluate, Results

OURS = "ours"
# What softplus is, without a derivative written for it.
WRITTEN_OUT = "relu(±x) + log1p(exp(-abs(x)))"


@dataclass(frozen=True)
class Formula:
    """One way to compute a loss. `evaluate(scores, target, dtype)` takes exact scores."""

    framework: str
    loss: str
    name: str
    run: str
    evaluate: Evaluate


def make_formulas(
    framework: str,
    losses: Mapping[str, Any],
    functions: Mapping[tuple[str, str], Any],
    runs: Mapping[str, Callable[[Any, Array, float, str], Results]],
) -> list[Formula]:
    """Return our losses and every function, by loss and name, under every way of running it."""
    ours = {(loss, OURS): losses[loss].each for loss in LOSSES}
    return [
        Formula(framework, loss, name, run, functools.partial(evaluate, function))
        for (loss, name), function in (ours | dict(functions)).items()
        for run, evaluate in runs.items()
    ]
