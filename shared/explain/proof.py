"""What a name has to show before it is given, and what is said of a stage that has none."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from shared.explain.catalogue import FIELDS, Change, deviations, is_known
from shared.explain.distance import Comparison
from shared.explain.observations import Group, Sides, reference_arrays
from shared.explain.report import Located

LEAST_NUMBERS = 10
"""So many independent numbers a fitted one must explain."""


def is_proven(groups: Sequence[Group], comparison: Comparison, sides: Sides) -> bool:
    """Whether conventions reproduce all of some groups."""
    return not any(comparison.differing(group, sides) for group in groups)


def explained(
    groups: Sequence[Group], comparison: Comparison, sides: Sides
) -> Iterator[tuple[Change, str, str]]:
    """Yield every change of some conventions without which numbers differ, enough for a fit.

    With it the first stage that shows it, and the network that alone has it, "" where both have or
    the other one has no use for it.
    """
    for change in deviations(*sides):
        having = {n: c for n, c in sides._asdict().items() if change.items() <= vars(c).items()}
        undone = {field: FIELDS[field] for field in change}
        without = sides._replace(**{name: c.replace(**undone) for name, c in having.items()})
        sizes = [
            (group.stage, group.arrays[name].size)
            for group in groups
            for name in comparison.differing(group, without)
        ]
        if sum(size for _, size in sizes) >= (1 if is_known(change) else LEAST_NUMBERS):
            both = Sides(*(c.replace(**change) for c in sides))
            is_alone = len(having) == 1 and not is_proven(groups, comparison, both)
            yield change, sizes[0][0], next(iter(having)) if is_alone else ""


def located(groups: Sequence[Group], comparison: Comparison, sides: Sides, tried: int) -> Located:
    """Return what is known of a stage that nothing explains: where it differs, and how."""
    for group in groups:
        _, first = comparison.compare(group, sides)
        if first is not None:
            names = tuple(comparison.differing(group, sides))
            hint = _suggestion(group, first.array, sides, comparison)
            place = group.stage, first.probe, first.array, first.relative
            return Located(*place, names, tried, hint)
    hint = "what explains it here does not on a third probe"
    return Located(groups[0].stage, tried=tried, note=hint)


def _suggestion(group: Group, name: str, sides: Sides, comparison: Comparison) -> str:
    """Return what the numbers of an array look like, beside the expected ones; "" for nothing."""
    probe, stage, of_what = group.probe, group.stage, "what is expected"
    received, expected = group.arrays[name], reference_arrays(stage, probe, sides)[name]
    if received.shape != expected.shape:
        return f"shape {received.shape}, expected {expected.shape}"
    if stage.startswith("updated"):
        v = {n: np.maximum(a, probe.arrays[n]) for n, a in probe.after.items() if n.endswith("/v")}
        largest = replace(group, probe=replace(probe, after=probe.after | v))
        if is_proven([largest], comparison, sides):
            return "AMSGrad: the largest second moment so far in place of the last one"
        received, expected = received - probe.arrays[name], expected - probe.arrays[name]
        of_what = "the move that is expected, as by a schedule of the learning rate"
    size = float(np.vdot(expected, expected))
    if received.size >= LEAST_NUMBERS and size:
        ratio = float(np.vdot(expected, received)) / size
        rest = float(np.linalg.norm(received - ratio * expected)) / size**0.5
        if rest <= comparison.allowed(stage):
            return f"{ratio:.6g} times {of_what}"
    return ""
