"""Traps of an operation whose inputs and results are recorded: a layer's, or Adam's update."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from shared.explain.catalogue import CANONICAL, FIXES
from shared.explain.recordings.evidence import (
    Evidence,
    Explanation,
    Side,
    Trap,
    Ways,
    fewest_differences,
    multiple,
    named_trap,
)
from shared.explain.recordings.matching import COMPANIONS, KERNELS
from shared.reference import layers
from shared.reference.adam import adam_update
from shared.reference.comparison import relative_l2
from shared.reference.layers import Array, batch_norm_forward, batch_norm_inference
from shared.spec import AdamSpec

Axes = tuple[int, ...]
Convolution = Callable[..., tuple[Array, layers.Saved]]
_BATCH_NORM_EPSILONS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-8)
_CHANNEL_AXES = (-1, 1)
_IMAGES: tuple[Axes, ...] = ((0, 1, 2, 3), (0, 2, 3, 1))  # to NHWC
# To height, width and the two kinds of channels, in either order.
_KERNELS: tuple[Axes, ...] = ((0, 1, 2, 3), (0, 1, 3, 2), (2, 3, 0, 1), (2, 3, 1, 0))
_ALIGNMENTS = ("centred", "before", "after")
_TURNED: dict[str, Callable[[Array], Array]] = {
    "as_stored": lambda kernel: kernel,
    "flipped": lambda kernel: kernel[::-1, ::-1],
    "transposed": lambda kernel: kernel.swapaxes(0, 1),
}
_ADAM_EPSILONS = (1e-3, 1e-5, 1e-6, 1e-7, 1e-8)
_PLACES = ("outside", "before_correction", "inside_root")
_MAXIMUM_NUMBERS = 2**16  # of a parameter: as many show as much as all
_COARSEST_TOLERANCE = 1e-2


def layer_traps(evidence: Evidence) -> Iterator[Trap]:
    """Yield what differs where a layer's output or its running statistics differ."""
    for operation in (_convolution, _normalisation):
        for layer, first, second in evidence.explained(operation, "output"):
            yield from fewest_differences(first, second, (f"{layer}/output",))
    for layer, first, second in evidence.explained(_running_move, "mean", "var"):
        where = (f"{layer}/mean", f"{layer}/var")
        # A move of weight 0 is none.
        still = [bool(side) and all(x[0][1] == 0.0 for x in side) for side in (first, second)]
        if first and second and still[0] != still[1]:
            one, other = ("never" if never else "every_pass" for never in still)
            yield named_trap("batch_norm_statistics", one, other, where)
        else:
            yield from fewest_differences(first, second, where)


def _recently(side: Side, step: int, layer: str, *names: str) -> list[Array]:
    """Return a layer's parameter of this step and the last: a forward pass may be before both."""
    keys = [(s, f"{layer}/{name}") for s in (step, step - 1) for name in names]
    return [side[key] for key in keys if key in side]


def _convolution(side: Side, step: int, layer: str) -> Ways:
    x, y = (side.get((step, f"{layer}/{name}")) for name in ("input", "output"))
    kernels = [k for k in _recently(side, step, layer, *KERNELS) if k.ndim == 4]
    if x is None or y is None or x.ndim != 4 or y.ndim != 4 or len(x) != len(y):
        return
    biases = [b.ravel() for b in _recently(side, step, layer, "bias")] or [np.zeros(1)]
    for data, order, kernel in itertools.product(_IMAGES, _KERNELS, kernels):
        # Two images show as much as all.
        images, expected = x[:2].transpose(data), y[:2].transpose(data)
        fitting = [b for b in biases if b.size in (1, expected.shape[-1])]
        for explanation, result in _convolutions(images, kernel.transpose(order), expected.shape):
            for bias in fitting:
                yield (*explanation, ("_layout", (data, order))), result + bias, expected


def _convolutions(x: Array, kernel: Array, shape: Axes) -> Iterator[tuple[Explanation, Array]]:
    """Yield the result of every convolution of x and an HWIO or HWOI kernel of a given shape."""
    paddings = range(min(kernel.shape[:2]))
    for turn, stride, padding in itertools.product(_TURNED, range(1, 5), paddings):
        turned = _TURNED[turn](kernel)
        alignments = _ALIGNMENTS if padding else _ALIGNMENTS[:1]
        kinds = _fitting(x.shape, turned.shape, shape, stride, padding)
        for (field, run), alignment in itertools.product(kinds, alignments):
            settings = (("_kind", field), ("_stride", (stride, padding)))
            explanation = ((field, turn), ("padding_alignment", alignment), *settings)
            yield explanation, run(x, turned, stride, padding, alignment)[0]


def _fitting(
    x: Axes, kernel: Axes, y: Axes, stride: int, padding: int
) -> Iterator[tuple[str, Convolution]]:
    """Yield the kinds of convolution that make the shape y of the shape x, both NHWC."""
    sizes = list(zip(x[1:3], kernel[:2], strict=True))
    down = tuple((size + 2 * padding - taps) // stride + 1 for size, taps in sizes)
    if (*down, *kernel[2:]) == (*y[1:3], x[3], y[3]):
        yield "conv_kernel", layers.conv_forward
    up = tuple(stride * (size - 1) + taps - 2 * padding for size, taps in sizes)
    if (*up, *kernel[2:]) == (*y[1:3], y[3], x[3]):
        yield "conv_transpose_kernel", layers.conv_transpose_forward


def _normalisation(side: Side, step: int, layer: str) -> Ways:
    x, y = (side.get((step, f"{layer}/{name}")) for name in ("input", "output"))
    scales, biases, means, variances = (
        [np.ravel(array) for array in _recently(side, step, layer, name)]
        for name in ("scale", "bias", "mean", "var")
    )
    running = list(zip(means, variances, strict=False))
    if x is None or y is None or x.shape != y.shape or x.ndim < 2 or not (scales or running):
        return
    parameters = itertools.product(scales or [np.ones(1)], biases or [np.zeros(1)])
    for axis, (scale, bias) in itertools.product(_CHANNEL_AXES, parameters):
        inputs, expected = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
        channels = inputs.shape[-1]
        if not {scale.size, bias.size} <= {1, channels}:
            continue
        for epsilon in _BATCH_NORM_EPSILONS:
            field = "batch_norm_epsilon", epsilon
            made = batch_norm_forward(inputs, scale, bias, epsilon)[0]
            yield (field, ("batch_norm_mode", "batch")), made, expected
            for mean, var in running:
                if mean.size == var.size == channels:
                    made = batch_norm_inference(inputs, scale, bias, mean, var, epsilon)[0]
                    yield (field, ("batch_norm_mode", "running")), made, expected


def _running_move(side: Side, step: int, layer: str) -> Ways:
    """Yield the new statistics' weight that fits best, for either estimator of the variance."""
    x = side.get((step, f"{layer}/input"))
    keys = [(s, f"{layer}/{name}") for s in (step - 1, step) for name in ("mean", "var")]
    if x is None or x.ndim < 2 or any(key not in side for key in keys):
        return
    vectors = [np.ravel(side[key]) for key in keys]
    before, after = np.concatenate(vectors[:2]), np.concatenate(vectors[2:])
    for axis, estimator in itertools.product(_CHANNEL_AXES, ("biased", "unbiased")):
        rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
        if {v.size for v in vectors} != {rows.shape[1]} or len(rows) < 2:
            continue
        variance = rows.var(axis=0, ddof=int(estimator == "unbiased"))
        way = np.concatenate([rows.mean(axis=0), variance]) - before
        weight = multiple(way, after - before) if way.any() else 0.0
        momentum = "batch_norm_momentum", abs(round(weight, 4))
        fields = momentum, ("batch_norm_running_variance", estimator)
        yield fields, before + weight * way, after


class _Update(NamedTuple):
    # One recorded update of one parameter, all of whose tensors are as at the end of a step.
    number: int  # counts from 1, 0 is not known
    gradient: Array
    after: Array
    change: Array
    old_moments: tuple[Array, Array]
    new_moments: tuple[Array, Array]


def adam_traps(evidence: Evidence) -> Iterator[Trap]:
    """Yield what differs in the moments' weights, then in the update, of each network."""
    for network, names in _parameters(evidence).items():
        updates = [[_updates(side, name) for name in names] for side in evidence.sides]
        bound = max(pair.bound for (_, name), pair in evidence.pairs.items() if name in names)
        betas = [_common(_betas(u, bound) for u in side) for side in updates]
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
        number = step if started else 0
        found.append(_Update(number, gradient, after, after - before, (m0, v0), (m, v)))
    return found


def _betas(updates: list[_Update], bound: float) -> set[Explanation]:
    """Return the weights of the old moments, where the same ones explain every update."""
    found: set[Explanation] = set()
    for u in updates:
        values = []
        averaged = u.gradient, np.square(u.gradient)
        for before, after, new in zip(u.old_moments, u.new_moments, averaged, strict=True):
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
    rate_name = rate_name if rate_name in FIXES else "learning_rate"
    zero = np.zeros(1)
    found: set[Explanation] = set()
    for epsilon, place, corrects in itertools.product(_ADAM_EPSILONS, _PLACES, (True, False)):
        conventions = CANONICAL.replace(adam_epsilon_placement=place, adam_bias_correction=corrects)
        settings = AdamSpec(1.0, betas[0][1], betas[1][1], epsilon)
        # The reference's change of each parameter, but for its weight decay.
        rest = settings, conventions
        made = [adam_update(zero, u.gradient, u.old_moments, u.number, *rest) for u in updates]
        unit = np.concatenate([moved for moved, *_ in made])
        rate = multiple(unit, change)
        if relative_l2(rate * unit, change) <= tolerance:
            values = (("adam_epsilon", epsilon), ("adam_epsilon_placement", place))
            shown = float(f"{rate:.3g}")
            found.add((*values, ("adam_bias_correction", corrects), (rate_name, shown)))
    return found
