"""Traps of Adam: the recorded moments, gradients and parameters of each network's updates."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from shared.explain.catalogue import CANONICAL, FIXES
from shared.explain.recordings import evidence as traps
from shared.explain.recordings.evidence import Evidence, Explanation, Side, listed, multiple
from shared.explain.recordings.matching import COMPANIONS
from shared.explain.search import LEAST_NUMBERS
from shared.reference.comparison import relative_l2
from shared.reference.layers import Array
from shared.reference.optimizers import adam_update, moved_parameter
from shared.spec import AdamSpec, Conventions

_EPSILONS = (*listed("adam_epsilon"), 1e-6, 1e-3)
_DECAYS = dict.fromkeys([*listed("adam_weight_decay"), *listed("adam_decoupled_decay")])
_TIMES = {"once": 1, "twice": 2}
_MAXIMUM_NUMBERS = 2**16  # of a parameter: as many show as much as all
_COARSEST_TOLERANCE = 1e-2


class _Updates(NamedTuple):
    # The updates of one parameter, a row each, all of whose tensors are as at the end of a step.
    number: Any  # a column that counts from 1; 0 is not known
    before: Array
    after: Array
    gradient: Array
    m: Array
    v: Array
    old_m: Array
    old_v: Array


def adam_traps(evidence: Evidence) -> Iterator[traps.Trap]:
    """Yield what differs in the moments' weights, then in the update, of each network."""
    for network, names in _parameters(evidence).items():
        updates = [[u for name in names if (u := _updates(side, name))] for side in evidence.sides]
        bound = max(pair.bound for (_, name), pair in evidence.pairs.items() if name in names)
        betas = [
            traps.simplest(_common((u, _betas(u, bound, network)) for u in side))
            for side in updates
        ]
        yield from traps.fewest_differences(betas[0], betas[1], tuple(names))
        settings = [
            {e for b in found for e in _common((u, _settings(u, b, bound, network)) for u in side)}
            for side, found in zip(updates, betas, strict=True)
        ]
        yield from traps.fewest_differences(settings[0], settings[1], tuple(names))


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


def _common(explained: Iterable[tuple[_Updates, set[Explanation] | None]]) -> set[Explanation]:
    """Return the explanations that hold for all parameters of one optimizer that have any.

    None where these are less than half of the numbers: a bias of one number is explained by many.
    """
    judged = [(u.after.size, found) for u, found in explained if found is not None]
    sets = [found for _, found in judged if found]
    is_most = 2 * sum(size for size, found in judged if found) > sum(size for size, _ in judged)
    return set.intersection(*sets) if sets and is_most else set()


def _updates(side: Side, name: str) -> _Updates | None:
    """Return the recorded updates of a parameter; its moments before the first may be left out."""
    rows: list[list[Any]] = []
    started = False
    for step in sorted(s for s, n in side if n == name):
        keys = [(step - 1, name), *((step, name + companion) for companion in ("", *COMPANIONS))]
        if any(key not in side for key in keys):
            continue
        zeros = np.zeros_like(side[step, name])
        arrays = [side[key] for key in keys]
        arrays += [side.get((step - 1, name + moment), zeros) for moment in ("/m", "/v")]
        thin = slice(None, None, 1 + zeros.size // _MAXIMUM_NUMBERS)
        vectors = [np.ravel(array)[thin] for array in arrays]
        sizes = {array.size for array in arrays}
        if len(sizes) > 1 or (rows and rows[0][1].size != vectors[0].size):
            continue
        started = started or (step == 1 and not any(old.any() for old in vectors[-2:]))
        rows.append([[step if started else 0], *vectors])
    return _Updates(*map(np.array, zip(*rows, strict=True))) if rows else None


def _field(network: str, field: str) -> str:
    """Return the field of a network, or that of no network where it is none of the two."""
    return f"{network}_{field}" if f"{network}_{field}" in FIXES else field


def _betas(updates: _Updates, bound: float, network: str) -> set[Explanation]:
    """Return both betas, how many updates a step and the decay that explain every moment."""
    found: set[Explanation] = set()
    for decay in _DECAYS if updates.gradient.size >= LEAST_NUMBERS else ():
        g = updates.gradient + decay * updates.before  # as `torch.optim.Adam` adds it
        moments = (updates.old_m, updates.m, g), (updates.old_v, updates.v, np.square(g))
        once = [_weight(*moment, bound) for moment in moments]
        for word, times in _TIMES.items() if None not in once else ():
            # Of several updates from one gradient the weights are powers.
            b1, b2 = (round(max(beta or 0.0, 0.0) ** (1 / times), 4) for beta in once)
            if times == 1 or (b1 in listed("adam_beta1") and b2 in listed("adam_beta2")):
                several = (_field(network, "updates"), word), ("adam_weight_decay", decay)
                found.add((("adam_beta1", b1), ("adam_beta2", b2), *several))
    return found


def _weight(before: Array, after: Array, new: Array, bound: float) -> float | None:
    """Return the weight of an old moment, below 1, if the same one explains every update."""
    found = set()
    for old, now, added in zip(before, after, new, strict=True):
        beta = multiple(old - added, now - added)
        if not relative_l2(added + beta * (old - added), now) <= bound or round(beta, 4) >= 1.0:
            return None
        found.add(round(beta, 4))
    return found.pop() if len(found) == 1 else None


def _settings(
    updates: _Updates, betas: Explanation, bound: float, network: str
) -> set[Explanation] | None:
    """Return every epsilon, its place, bias correction, decay and rate that explain all moves.

    None for moves that cannot tell: too small, or in each update a multiple of the first moments.
    """
    (_, beta1), (_, beta2), (_, word), (_, decay) = betas
    u, times = updates._replace(gradient=updates.gradient + decay * updates.before), _TIMES[word]
    change = u.after - u.before
    # A parameter is far larger than its update, which therefore carries the parameter's rounding.
    rounding = np.finfo(np.float64 if bound < 1e-8 else np.float32).eps
    tolerance = bound + float(rounding * np.linalg.norm(u.after) / np.linalg.norm(change))
    if not u.number.all() or not tolerance <= _COARSEST_TOLERANCE:
        return None
    multiples = (multiple(m, moved) * m for m, moved in zip(u.m, change, strict=True))
    if relative_l2(np.stack([*multiples]), change) <= tolerance:
        return None
    seconds = {"own": u.v}
    if times == 1:  # AMSGrad's
        seconds["largest"] = np.maximum.accumulate(u.v)
    found: set[Explanation] = set()
    ways = itertools.product(_EPSILONS, listed("adam_epsilon_placement"), (True, False), seconds)
    for epsilon, place, corrects, which in ways:
        c = CANONICAL.replace(adam_epsilon_placement=place, adam_bias_correction=corrects)
        unit = _unit_move(u, seconds[which], times, AdamSpec(1.0, beta1, beta2, epsilon), c)
        for rate, decoupled in _rates(unit.ravel(), u.before.ravel(), change.ravel(), tolerance):
            values = (("adam_epsilon", epsilon), ("adam_epsilon_placement", place))
            rest = ("adam_bias_correction", corrects), ("adam_decoupled_decay", decoupled)
            shown = _field(network, "learning_rate"), float(f"{rate:.3g}")
            found.add((*values, *rest, ("second moments in Adam's root:", which), shown))
    return found


def _unit_move(u: _Updates, v: Array, times: int, settings: AdamSpec, c: Conventions) -> Array:
    """Return the change for a learning rate of 1; the last update is made from m and from `v`."""
    moved, old = np.zeros(1), (u.old_m, u.old_v)
    if times == 2:
        moved, *_ = adam_update(moved, u.gradient, old, 2 * u.number - 1, settings, c)
    return moved_parameter(moved, u.m, v, times * u.number, settings, c)


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
