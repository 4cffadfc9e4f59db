"""How far a step in less than float32 is from the truth: arrays of a kind taken together.

TF32 and bfloat16 carry many pre-activations across the kink of a ReLU, so a small array, such as
the bias of eight numbers, may be off by a third though nothing is wrong. All arrays of a kind of
one network together are not: what one of them has too much another has too little.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from shared.reference.differences import Arrays, drifting_arrays
from shared.spec import SystemSpec

# Reached, all systems and losses: tf32 in PyTorch with every convolution and matrix product rounded
# to it on a CPU, bfloat16 by the three implementations and baselines on a CPU. Beside it the
# smallest faults of Conventions that move the same:
#
# - tf32. losses 1.0e-3 (update_order simultaneous 5.7e-3). statistics 9.4e-5 (biased running
#   variance 9.9e-4). moments 7.2e-2 (update_order 0.16, real_label 0.9 0.14 to 0.22). updates
#   9.4e-2 (Adam's beta1 0.9 0.66).
# - bfloat16. losses 3.3e-2 (dcgan64: update_order simultaneous 0.15, which is also what autocast's
#   cache of weights does across an optimizer's step; discriminator_loss_scale 0.5 0.5). statistics
#   1.9e-3 (biased running variance in conv28 7e-3, BN merged or moved once too seldom 0.3).
#   moments 0.29 (detach_fake 0.84, discriminator_loss_scale 0.5). updates 0.25 (beta1 0.66).
#
# The second moments are left out: a step adds a thousandth of a square to them.
POOLED_BOUNDS: dict[str, dict[str, float]] = {
    "tf32": {"losses": 3e-3, "statistics": 3e-4, "moments": 0.13, "updates": 0.2},
    "bfloat16": {"losses": 6e-2, "statistics": 5e-3, "moments": 0.4, "updates": 0.45},
}
KINDS = {"mean": "statistics", "var": "statistics", "m": "moments"}


def pooled_bounds(precision: str, differences: Mapping[str, float]) -> dict[str, float]:
    """Return the bound of each difference; a counter has none to speak of."""
    kinds = POOLED_BOUNDS[precision]
    return {name: kinds.get(name.rsplit("/", 1)[-1], 0.5) for name in differences}


def pooled_differences(
    spec: SystemSpec, start: Arrays, actual: Arrays, expected: Arrays
) -> dict[str, float]:
    """Return ‖actual - expected‖ over the norm of what the step changed, for each network's kinds.

    Kinds are statistics and updates, whose change is from `start`, and moments, whose norm is
    their own. A counter of Adam's that differs counts as inf, under its own name.
    """
    drifting = set(drifting_arrays(spec))
    differences: dict[str, float] = {}
    norms: dict[str, float] = {}
    for name, truth in expected.items():
        network, last = name.split("/", 1)[0].removesuffix("_optimizer"), name.rsplit("/", 1)[-1]
        if last == "step":
            differences[name] = 0.0 if np.array_equal(actual[name], truth) else np.inf
        elif name not in drifting and last != "v":
            kind = f"{network}/{KINDS.get(last, 'updates')}"
            origin = 0.0 if last == "m" else start[name].astype(np.float64)
            error = float(np.sum((np.asarray(actual[name], np.float64) - truth) ** 2))
            differences[kind] = differences.get(kind, 0.0) + error
            norms[kind] = norms.get(kind, 0.0) + float(np.sum((truth - origin) ** 2))
    return {
        name: float(np.sqrt(value / norms[name])) if name in norms else value
        for name, value in differences.items()
    }
