"""Traps of Adam: parameter, gradient and moments recorded at the end of every step."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from shared.explain.catalogue import CANONICAL, FIELDS
from shared.explain.recordings.aligning import COMPANIONS
from shared.explain.recordings.evidence import (
    Evidence,
    Explanation,
    Side,
    fewest_differences,
    multiple,
)
from shared.explain.recordings.report import Trap
from shared.reference.adam import adam_update
from shared.reference.comparison import relative_l2
from shared.reference.layers import Array
from shared.spec import AdamSpec, Conventions

_EPSILONS = (1e-3, 1e-5, 1e-6, 1e-7, 1e-8)
_PLACES = ("outside", "before_correction", "inside_root")
_MAXIMUM_NUMBERS = 2**16  # of a parameter: as many show as much as all
_COARSEST_TOLERANCE = 1e-2


@dataclass(frozen=True)
class _Update:
    """One recorded update of one parameter: its `number` counts from 1, 0 is not known."""

    number: int
    gradient: Array
    after: Array
    change: Array
    m: tuple[Array, Array]
    v: tuple[Array, Array]

    def made(self, settings: AdamSpec, conventions: Conventions) -> Array:
        """Return the reference's change of the parameter, but for its weight decay."""
        moments = self.m[0], self.v[0]
        arguments = (np.zeros(1), self.gradient, moments, self.number, settings, conventions)
        return adam_update(*arguments)[0]


def adam_traps(evidence: Evidence) -> Iterator[Trap]:
    """Yield what differs in the moments' weights, then in the update, of each network."""
    for network, names in _parameters(evidence).items():
        updates = [[_updates(side, name) for name in names] for side in evidence.sides]
        bound = max(evidence.bound(*key) for key in evidence.by_name if key[1] in names)
        betas = [_common(_betas(u, bound) for u in side) for side in updates]
        yield from fewest_differences(betas[0], betas[1], tuple(names))
        settings = [
            _common(_settings(u, b, bound, network) for u in side for b in found)
            for side, found in zip(updates, betas, strict=True)
        ]
        yield from fewest_differences(settings[0], settings[1], tuple(names))


def _parameters(evidence: Evidence) -> dict[str, list[str]]:
    """Return the parameters of each network that disagree, by their names' first part.

    A gradient or moment that disagrees is enough; all of them have to be recorded.
    """
    disagreeing = {name for _, name in evidence.disagreeing}
    recorded = dict.fromkeys(name for _, name in evidence.by_name)
    networks: dict[str, list[str]] = {}
    for name in recorded:
        companions = {name + companion for companion in COMPANIONS}
        if companions <= recorded.keys() and disagreeing & {name, *companions}:
            networks.setdefault(name.split("/", 1)[0], []).append(name)
    return networks


def _common(explained: Iterable[set[Explanation]]) -> set[Explanation]:
    """Return the explanations that hold for all parameters of one optimizer that have any."""
    sets = [explanations for explanations in explained if explanations]
    return set.intersection(*sets) if sets else set()


def _updates(side: Side, name: str) -> list[_Update]:
    """Return the recorded updates of a parameter; its moments before the first may be left out."""
    found: list[_Update] = []
    started = False
    for step in sorted(s for s, n in side if n == name):
        keys = [(step - 1, name), *((step, name + companion) for companion in ("", *COMPANIONS))]
        if any(key not in side for key in keys):
            continue
        zeros = np.zeros_like(side[step, name])
        arrays = [side[key] for key in keys]
        arrays += [side.get((step - 1, name + moment), zeros) for moment in ("/m", "/v")]
        if len({array.size for array in arrays}) > 1:
            continue
        thin = slice(None, None, 1 + zeros.size // _MAXIMUM_NUMBERS)
        before, after, gradient, m, v, m0, v0 = (np.ravel(array)[thin] for array in arrays)
        started = started or (step == 1 and not m0.any() and not v0.any())
        number = step if started else 0
        found.append(_Update(number, gradient, after, after - before, (m0, m), (v0, v)))
    return found


def _betas(updates: list[_Update], bound: float) -> set[Explanation]:
    """Return the weights of the old moments, where the same ones explain every update."""
    found: set[Explanation] = set()
    for u in updates:
        values = []
        for (before, after), new in ((u.m, u.gradient), (u.v, np.square(u.gradient))):
            beta = multiple(before - new, after - new)
            if not relative_l2(new + beta * (before - new), after) <= bound:
                return set()
            values.append(round(beta, 4))
        found.add((("adam_beta1", values[0]), ("adam_beta2", values[1])))
    return found if len(found) == 1 else set()


def _settings(
    updates: list[_Update], betas: Explanation, bound: float, network: str
) -> set[Explanation]:
    """Return every epsilon, its place, bias correction and learning rate that fit all updates."""
    if not updates or any(u.number == 0 for u in updates):
        return set()
    change = np.concatenate([u.change for u in updates])
    after = np.concatenate([u.after for u in updates])
    # A parameter is far larger than its update, which therefore carries the parameter's rounding.
    rounding = np.finfo(np.float64 if bound < 1e-8 else np.float32).eps
    tolerance = bound + rounding * np.linalg.norm(after) / np.linalg.norm(change)
    if not tolerance <= _COARSEST_TOLERANCE:
        return set()
    rate_name = f"{network}_learning_rate"
    rate_name = rate_name if rate_name in FIELDS else "learning_rate"
    found: set[Explanation] = set()
    for epsilon, place, corrects in itertools.product(_EPSILONS, _PLACES, (True, False)):
        conventions = CANONICAL.replace(adam_epsilon_placement=place, adam_bias_correction=corrects)
        settings = AdamSpec(1.0, betas[0][1], betas[1][1], epsilon)
        unit = np.concatenate([u.made(settings, conventions) for u in updates])
        rate = multiple(unit, change)
        if relative_l2(rate * unit, change) <= tolerance:
            values = (("adam_epsilon", epsilon), ("adam_epsilon_placement", place))
            shown = float(f"{rate:.3g}")
            found.add((*values, ("adam_bias_correction", corrects), (rate_name, shown)))
    return found
