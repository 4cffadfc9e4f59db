"""The weights that an implementation starts with: whose initializers drew them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args, get_type_hints

import numpy as np

from shared.explain.distance import Parting
from shared.explain.port import Port
from shared.explain.probes import Arrays
from shared.explain.verdict import Stage
from shared.reference.comparison import relative_l2
from shared.spec import Conventions, SystemSpec
from shared.spec.streams import initial_state

STAGE = "initial weights"
SEED = 3
# The same draws, rounded to float32 at most.
SAME = 1e-6
# A mean square of independent draws is this many of its own standard deviations off, by chance
# never: 1 in 10⁶ for each array.
SURPRISE = 5.0


@dataclass(frozen=True)
class InitialWeights:
    """What is known of the initial weights; `initializer` is the field of `Conventions`."""

    stage: Stage
    initializer: str = "spec"
    parting: Parting | None = None
    note: str = ""


def initial_weights(port: Port, spec: SystemSpec) -> InitialWeights:
    """Compare a fresh state with the draws of every initializer, then with their spread.

    An implementation need not draw from the shared streams; then its weights' mean squares are
    held against the spec's.
    """
    if not port.offers("create", "export_state"):
        return InitialWeights(Stage(STAGE, "", None, "", port.lacking("create", "export_state")))
    fresh = port.exported(spec, port.call("create", spec, seed=SEED, dtype=port.dtype))
    for name in get_args(get_type_hints(Conventions)["initializer"]):
        expected = initial_state(spec, SEED, Conventions(initializer=name))
        worst = _worst(fresh, expected)
        if worst[0] <= SAME:
            return _as_drawn(fresh, spec, name)
    wrong = [name for name in fresh if _surprise(name, fresh[name], spec) > SURPRISE]
    stage = Stage(STAGE, f"seed {SEED}", None, "", "not drawn from the shared streams")
    if not wrong:
        return InitialWeights(stage)
    spread = float(np.sqrt(np.mean(np.square(fresh[wrong[0]]))))
    canonical = initial_state(spec, SEED)
    wanted = float(np.sqrt(np.mean(np.square(canonical[wrong[0]]))))
    note = (
        f"initial weights are spread otherwise: {wrong[0]} has {spread:.3g}, expected {wanted:.3g}"
    )
    return InitialWeights(stage, note=note)


def _as_drawn(fresh: Arrays, spec: SystemSpec, name: str) -> InitialWeights:
    canonical = initial_state(spec, SEED)
    difference, where = _worst(fresh, canonical)
    stage = Stage(STAGE, f"seed {SEED}", difference, where, agrees=name == "spec")
    if name == "spec":
        return InitialWeights(stage)
    parting = Parting(
        STAGE, f"seed {SEED}", where, difference, fresh[where], canonical[where].astype(np.float64)
    )
    return InitialWeights(stage, name, parting)


def _worst(fresh: Arrays, expected: Arrays) -> tuple[float, str]:
    return max((relative_l2(fresh[name], expected[name]), name) for name in fresh)


def _surprise(name: str, array: np.ndarray, spec: SystemSpec) -> float:
    """Return how far an array's mean square is from the spec's, in standard deviations of it."""
    parameter = (spec.parameters("generator") | spec.parameters("discriminator")).get(name)
    if parameter is None or array.size < 64:
        return 0.0
    # Many draws of the spec's own, of which the spread is measured.
    draws = np.array(
        [float(np.mean(np.square(initial_state(spec, seed)[name]))) for seed in range(20)]
    )
    received = float(np.mean(np.square(array)))
    spread = max(float(draws.std(ddof=1)), 1e-12)
    return abs(received - float(draws.mean())) / spread
