"""Traps of batch normalisation: its epsilon and statistics, and how the running ones move."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from shared.explain.recordings.evidence import (
    Evidence,
    Explanation,
    Side,
    fewest_differences,
    named_trap,
    recently,
)
from shared.explain.recordings.report import Trap
from shared.reference.comparison import relative_l2
from shared.reference.layers import Array, batch_norm_forward, batch_norm_inference

_EPSILONS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-8)
_CHANNEL_AXES = (-1, 1)


def batch_norm_traps(evidence: Evidence) -> Iterator[Trap]:
    """Yield what differs where a layer's output or its running statistics differ."""
    for step, layer in evidence.with_suffix("/output"):
        explained = evidence.explain(_normalisation, step, layer, "output")
        yield from fewest_differences(*explained, (f"{layer}/output",))
    for step, layer in evidence.with_suffix("/mean", "/var"):
        name = next(n for n in ("mean", "var") if (step, f"{layer}/{n}") in evidence.by_name)
        moves = evidence.explain(_running_move, step, layer, name)
        yield from _moved_differently(*moves, (f"{layer}/mean", f"{layer}/var"))


def _normalisation(side: Side, step: int, layer: str, bound: float) -> set[Explanation]:
    """Return every epsilon and kind of statistics that give the recorded output."""
    x, y = (side.get((step, f"{layer}/{name}")) for name in ("input", "output"))
    if x is None or y is None or x.shape != y.shape or x.ndim < 2:
        return set()
    vectors = {n: _vectors(side, step, layer, n) for n in ("scale", "bias", "mean", "var")}
    running = list(zip(vectors["mean"], vectors["var"], strict=False))
    if not vectors["scale"] and not running:
        return set()
    scales, biases = vectors["scale"] or [np.ones(1)], vectors["bias"] or [np.zeros(1)]
    found: set[Explanation] = set()
    for axis, scale, bias in itertools.product(_CHANNEL_AXES, scales, biases):
        inputs, expected = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
        if not {scale.size, bias.size} <= {1, inputs.shape[-1]}:
            continue
        for explanation, result in _normalised(inputs, scale, bias, running):
            if relative_l2(result, expected) <= bound:
                found.add(explanation)
    return found


def _vectors(side: Side, step: int, layer: str, name: str) -> list[Array]:
    return [np.ravel(array) for array in recently(side, step, layer, name)]


def _normalised(
    inputs: Array, scale: Array, bias: Array, running: list[tuple[Array, Array]]
) -> Iterator[tuple[Explanation, Array]]:
    """Yield the outputs under every epsilon, by the batch's statistics and by the running ones."""
    channels = inputs.shape[-1]
    fitting = [(mean, var) for mean, var in running if mean.size == var.size == channels]
    for epsilon in _EPSILONS:
        field = "batch_norm_epsilon", epsilon
        output = batch_norm_forward(inputs, scale, bias, epsilon)[0]
        yield (field, ("batch_norm_mode", "batch")), output
        for mean, var in fitting:
            output = batch_norm_inference(inputs, scale, bias, mean, var, epsilon)[0]
            yield (field, ("batch_norm_mode", "running")), output


def _running_move(side: Side, step: int, layer: str, bound: float) -> set[Explanation]:
    """Return the weight of the new statistics and the variance's estimator, where one mix fits."""
    x = side.get((step, f"{layer}/input"))
    keys = [(s, f"{layer}/{name}") for s in (step - 1, step) for name in ("mean", "var")]
    if x is None or x.ndim < 2 or any(key not in side for key in keys):
        return set()
    vectors = [np.ravel(side[key]) for key in keys]
    before, after = np.concatenate(vectors[:2]), np.concatenate(vectors[2:])
    found: set[Explanation] = set()
    for axis, estimator in itertools.product(_CHANNEL_AXES, ("biased", "unbiased")):
        rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
        if {v.size for v in vectors} != {rows.shape[1]} or len(rows) < 2:
            continue
        variance = rows.var(axis=0, ddof=int(estimator == "unbiased"))
        way = np.concatenate([rows.mean(axis=0), variance]) - before
        weight = float(way @ (after - before) / (way @ way)) if way.any() else 0.0
        if relative_l2(before + weight * way, after) <= bound:
            momentum = "batch_norm_momentum", abs(round(weight, 4))
            found.add((momentum, ("batch_norm_running_variance", estimator)))
    return found


def _moved_differently(
    first: set[Explanation], second: set[Explanation], where: tuple[str, ...]
) -> list[Trap]:
    """Compare two moves of the running statistics; one of weight 0 is none."""
    still = [bool(side) and all(x[0][1] == 0.0 for x in side) for side in (first, second)]
    if first and second and still[0] != still[1]:
        values = ["never" if stands else "every_pass" for stands in still]
        return [named_trap("batch_norm_statistics", values[0], values[1], where)]
    return fewest_differences(first, second, where)
