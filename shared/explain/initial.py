"""The weights that an implementation starts with: whose initializers drew them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.explain.catalogue import known_values
from shared.explain.distance import Divergence
from shared.explain.port import Port
from shared.explain.probes import Arrays
from shared.explain.verdict import Stage, Trap
from shared.reference.comparison import relative_l2
from shared.spec import Conventions, SystemSpec
from shared.spec.streams import initial_state

STAGE = "initial weights"
SEED = 3
DRAWS = 20  # of which the spread of a mean square is measured
SAME = 1e-6  # the same draws, rounded to float32 at most
# A mean square of independent draws is this many of its own standard deviations off, by chance
# never: 1 in 10⁶ for each array.
SURPRISE = 5.0


@dataclass(frozen=True)
class InitialWeights:
    """What is known of the initial weights; without a `trap` they agree or were drawn freely."""

    stage: Stage
    first: Divergence | None = None
    trap: Trap | None = None
    note: str = ""


def initial_weights(port: Port, spec: SystemSpec) -> InitialWeights:
    """Compare a fresh state with the draws of every initializer, then with their spread.

    An implementation need not draw from the shared streams; then its weights' mean squares are
    held against the spec's.
    """
    if reason := port.lacking("create", "export_state"):
        return InitialWeights(Stage(STAGE, "", None, "", reason))
    fresh = port.exported(spec, port.call("create", spec, seed=SEED, dtype=port.dtype))
    if not fresh:
        return InitialWeights(Stage(STAGE, "", None, "", "it returned none"))
    canonical = initial_state(spec, SEED)
    difference, where = _worst(fresh, canonical)
    agrees = difference <= SAME
    stage = Stage(STAGE, f"seed {SEED}", difference, where, agrees=agrees)
    if agrees:
        return InitialWeights(stage)
    for name in known_values()["initializer"]:
        if _worst(fresh, initial_state(spec, SEED, Conventions(initializer=name)))[0] <= SAME:
            place = STAGE, f"seed {SEED}", where
            arrays = fresh[where], canonical[where]
            first = Divergence.of(place, difference, *arrays, port.dtype)
            trap = Trap({"initializer": name}, difference, f"{where} ({STAGE})")
            return InitialWeights(stage, first, trap)
    stage = Stage(STAGE, f"seed {SEED}", None, "", "not drawn from the shared streams")
    return InitialWeights(stage, note=_unusual_spread(fresh, canonical, spec))


def _worst(fresh: Arrays, expected: Arrays) -> tuple[float, str]:
    return max((relative_l2(fresh[name], expected[name]), name) for name in fresh)


def _unusual_spread(fresh: Arrays, canonical: Arrays, spec: SystemSpec) -> str:
    """Return what is to be noted of the first array whose mean square is not the spec's."""
    parameters = spec.parameters("generator") | spec.parameters("discriminator")
    draws = [initial_state(spec, seed) for seed in range(DRAWS)]
    for name, array in fresh.items():
        if name not in parameters or array.size < 64:
            continue
        expected = np.array([np.mean(np.square(draw[name])) for draw in draws])
        deviation = max(float(expected.std(ddof=1)), 1e-12)
        received = float(np.mean(np.square(array)))
        if abs(received - expected.mean()) > SURPRISE * deviation:
            wanted = np.sqrt(np.mean(np.square(canonical[name])))
            return (
                f"initial weights are spread otherwise: {name} has {np.sqrt(received):.3g}, "
                f"expected {wanted:.3g}"
            )
    return ""
