"""Traps in losses: the labels with which each side's own scores make its own losses."""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Sequence

from shared.explain.catalogue import FIELDS
from shared.explain.recordings import evidence as traps
from shared.explain.recordings.evidence import Evidence, Explanation, Side, listed
from shared.reference.losses import discriminator_half
from shared.spec import Conventions

_LOSSES = ("bce", "bce_probs", "lsgan")
_SCORES = re.compile(r"(scores?|logits?|/output)[^/]*(/\d+)?$")
_DECIMALS = 3  # of a label that is fitted


def loss_traps(evidence: Evidence) -> Iterator[traps.Trap]:
    """Yield the label on which two losses differ; one side's has to be the canonical one."""
    for name in dict.fromkeys(n for _, n in evidence.disagreeing if "loss" in n.lower()):
        steps = [step for step, other in evidence.pairs if other == name]
        bound = max(evidence.pairs[step, name].bound for step in steps)
        one, other = (traps.simplest(_explanations(x, steps, name, bound)) for x in evidence.sides)
        found = traps.fewest_differences(one, other, (name,))
        found = [t for t in found if t.field and str(FIELDS[t.field]) in (t.first, t.second)]
        named = {trap.field for trap in found}
        yield from (dataclasses.replace(t, certain=len(named) == len(found)) for t in found)


def _explanations(side: Side, steps: Sequence[int], name: str, bound: float) -> set[Explanation]:
    """Return by which loss of which scores, and with which labels, all steps' losses are made."""
    if any(side.get((step, name)) is None or side[step, name].size != 1 for step in steps):
        return set()
    scores = [n for step, n in side if step == steps[0] and _are_scores(side, steps, n)]
    found: set[Explanation] = set()
    for loss, own in itertools.product(_LOSSES, _fields(name.lower())):
        for parts in itertools.permutations(scores, len(own)):
            values = [[side[step, n].ravel() for n in parts] for step in steps]
            losses = [float(side[step, name].item()) for step in steps]
            for labels in _labels(loss, own, values[0], losses):
                pairs = zip((_total(loss, x, labels) for x in values), losses, strict=True)
                if all(math.isclose(a, b, rel_tol=bound, abs_tol=bound) for a, b in pairs):
                    found.add((("_scores", (loss, *parts)), *zip(own, labels, strict=True)))
    return found


def _fields(name: str) -> tuple[tuple[str, ...], ...]:
    """Return the labels that a loss of this name may have: one, or both of the discriminator's."""
    if name.startswith("g") or "generator" in name:
        return (("generator_label",),)
    own = tuple((f"{half}_label",) for half in ("real", "fake") if half in name)
    return own or (("real_label",), ("fake_label",), ("real_label", "fake_label"))


def _are_scores(side: Side, steps: Sequence[int], name: str) -> bool:
    arrays = [side.get((step, name)) for step in steps] if _SCORES.search(name) else [None]
    return all(a is not None and a.ndim and 1 < a.size == a.shape[0] for a in arrays)


def _labels(
    loss: str, fields: Sequence[str], scores: list, losses: list[float]
) -> Iterator[tuple[float, ...]]:
    """Yield the listed labels; of several steps' cross entropies the first's own one, too.

    A loss is linear in a label, so the fitted one is known from those of two labels.
    """
    for labels in itertools.product(*(listed(field) for field in fields)):
        yield labels
        if loss == "bce" and len(losses) > 1 and labels[0] == FIELDS[fields[0]]:
            at_0, at_1 = (_total(loss, scores, (y, *labels[1:])) for y in (0.0, 1.0))
            if at_0 != at_1:
                fitted = round((losses[0] - at_0) / (at_1 - at_0), _DECIMALS)
                yield (fitted + 0.0, *labels[1:])  # never -0.0


def _total(loss: str, scores: list, labels: Sequence[float]) -> float:
    halves = zip(scores, labels, strict=True)
    return sum(discriminator_half(loss, x, y, Conventions())[0] for x, y in halves)
