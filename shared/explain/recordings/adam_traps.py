"""Traps of Adam: the recorded moments, gradients and parameters of each network's updates."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from shared.explain.catalogue import CANONICAL, FIXES
from shared.explain.proof import LEAST_NUMBERS
from shared.explain.recordings.evidence import (
    Evidence,
    Explanation,
    Side,
    Trap,
    fewest_differences,
    listed,
    multiple,
    simplest,
)
from shared.explain.recordings.matching import COMPANIONS
from shared.reference.adam import adam_update, moved_parameter
from shared.reference.comparison import relative_l2
from shared.reference.layers import Array
from shared.spec import AdamSpec, Conventions

_EPSILONS = (*listed("adam_epsilon"), 1e-6, 1e-3)
_DECAYS = dict.fromkeys([*listed("adam_weight_decay"), *listed("adam_decoupled_decay")])
_UPDATES = {1: "once", 2: "twice"}
_MAXIMUM_NUMBERS = 2**16  # of a parameter: as many show as much as all
_COARSEST_TOLERANCE = 1e-2


class _Update(NamedTuple):
    # One step's update of one parameter, all of whose tensors are as at the end of a step.
    number: int  # counts from 1, 0 is not known
    gradient: Array
    before: Array
    after: Array
    old_moments: tuple[Array, Array]
    new_moments: tuple[Array, Array]


def adam_traps(evidence: Evidence) -> Iterator[Trap]:
    """Yield what differs in the moments' weights, then in the update, of each network."""
    for network, names in _parameters(evidence).items():
        updates = [[_updates(side, name) for name in names] for side in evidence.sides]
        bound = max(pair.bound for (_, name), pair in evidence.pairs.items() if name in names)
        betas = [simplest(_common(_betas(u, bound, network) for u in side)) for side in updates]
        yield from fewest_differences(betas[0], betas[1], tuple(names))
        settings = [
            _common(_settings(u, b, bound, network) for u in side for b in found)
            for side, found in zip(updates, betas, strict=True)
        ]
        yield from fewest_differences(settings[0], settings[1], tuple(names))


def _parameters(evidence: Evidence) -> dict[str, list[str]]:
    # A gradient or moment that disagrees is enough; all of them have to be recorded.
    disagreeing = {name for _, name in evidence.disagreeing}
    recorded = dict.fromkeys(name for _, name in evidence.pairs)
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
        found.append(_Update(step if started else 0, gradient, before, after, (m0, v0), (m, v)))
    return found


def _field(network: str, field: str) -> str:
    """Return the field of a network, or that of no network where it is none of the two."""
    return f"{network}_{field}" if f"{network}_{field}" in FIXES else field


def _betas(updates: list[_Update], bound: float, network: str) -> set[Explanation]:
    """Return both betas, how many updates a step and the decay that explain every moment."""
    found: set[Explanation] = set()
    if sum(u.gradient.size for u in updates) < LEAST_NUMBERS:
        return found
    for decay in _DECAYS:
        once = _weights(_decayed(updates, decay), bound)
        for times, word in _UPDATES.items() if once else ():
            # Of several updates from one gradient the weights are powers.
            b1, b2 = (round(max(beta, 0.0) ** (1 / times), 4) for beta in once)
            if times == 1 or (b1 in listed("adam_beta1") and b2 in listed("adam_beta2")):
                several = (_field(network, "updates"), word), ("adam_weight_decay", decay)
                found.add((("adam_beta1", b1), ("adam_beta2", b2), *several))
    return found


def _decayed(updates: list[_Update], decay: float) -> list[_Update]:
    """Return updates with weight decay in their gradients, as `torch.optim.Adam` adds it."""
    return [u._replace(gradient=u.gradient + decay * u.before) for u in updates]


def _weights(updates: list[_Update], bound: float) -> tuple[float, ...]:
    """Return the weights of the old moments if the same ones explain every update, else none."""
    found: set[tuple[float, ...]] = set()
    for u in updates:
        values = []
        averaged = u.gradient, np.square(u.gradient)
        for before, after, new in zip(u.old_moments, u.new_moments, averaged, strict=True):
            beta = multiple(before - new, after - new)
            if not relative_l2(new + beta * (before - new), after) <= bound:
                return ()
            values.append(round(beta, 4))
        found.add(tuple(values))
    return found.pop() if len(found) == 1 else ()


def _settings(
    updates: list[_Update], betas: Explanation, bound: float, network: str
) -> set[Explanation]:
    """Return every epsilon, its place, bias correction, decay and rate that explain all moves."""
    if not updates or any(u.number == 0 for u in updates):
        return set()
    updates = _decayed(updates, betas[3][1])
    before, after = (np.concatenate([getattr(u, n) for u in updates]) for n in ("before", "after"))
    change = after - before
    # A parameter is far larger than its update, which therefore carries the parameter's rounding.
    rounding = np.finfo(np.float64 if bound < 1e-8 else np.float32).eps
    tolerance = bound + float(rounding * np.linalg.norm(after) / np.linalg.norm(change))
    if not tolerance <= _COARSEST_TOLERANCE:
        return set()
    times = next(n for n, word in _UPDATES.items() if word == betas[2][1])
    seconds = {"own": [u.new_moments[1] for u in updates]}
    if times == 1:  # AMSGrad's
        seconds["largest"] = list(itertools.accumulate(seconds["own"], np.maximum))
    found: set[Explanation] = set()
    ways = itertools.product(_EPSILONS, listed("adam_epsilon_placement"), (True, False), seconds)
    for epsilon, place, corrects, which in ways:
        c = CANONICAL.replace(adam_epsilon_placement=place, adam_bias_correction=corrects)
        settings = AdamSpec(1.0, betas[0][1], betas[1][1], epsilon)
        pairs = zip(updates, seconds[which], strict=True)
        unit = np.concatenate([_unit_move(u, v, times, settings, c) for u, v in pairs])
        for rate, decay in _rates(unit, before, change, tolerance):
            values = (("adam_epsilon", epsilon), ("adam_epsilon_placement", place))
            rest = ("adam_bias_correction", corrects), ("adam_decoupled_decay", decay)
            shown = _field(network, "learning_rate"), float(f"{rate:.3g}")
            found.add((*values, *rest, ("second moments in Adam's root:", which), shown))
    return found


def _unit_move(u: _Update, v: Array, times: int, settings: AdamSpec, c: Conventions) -> Array:
    """Return the reference's change in a step of `times` updates, for a learning rate of 1.

    The last one is made from the recorded m and from `v`. Decoupled decay is left out.
    """
    moved, moments = np.zeros(1), u.old_moments
    for number in range(times * (u.number - 1) + 1, times * u.number):
        moved, m, squared = adam_update(moved, u.gradient, moments, number, settings, c)
        moments = m, squared
    return moved_parameter(moved, u.new_moments[0], v, times * u.number, settings, c)


def _rates(
    unit: Array, before: Array, change: Array, tolerance: float
) -> Iterator[tuple[float, float]]:
    """Yield the learning rate that makes a change of a unit move, or it and a listed decay."""
    rate = multiple(unit, change)
    if relative_l2(rate * unit, change) <= tolerance:
        yield rate, 0.0
    elif np.isfinite(unit).all():
        columns = np.stack([unit, -before], axis=1)
        rate, decayed = np.linalg.lstsq(columns, change, rcond=None)[0]
        fits = rate and relative_l2(columns @ (rate, decayed), change) <= tolerance
        decay = float(f"{decayed / rate:.2g}") if fits else 0.0
        if decay and decay in listed("adam_decoupled_decay"):
            yield float(rate), decay
