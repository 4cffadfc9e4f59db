"""The optimal discriminator, found by training: `python -m shared.equilibrium` prints how near.

For two known densities on a line, p_d of the real and p_g of the fake numbers, a small NumPy
discriminator is trained with the loss and the score gradients of an implementation. It has to
arrive at D*(x) = (real_label · p_d + fake_label · p_g) / (p_d + p_g), whichever loss it descends
(Goodfellow et al. 2014, proposition 1; Mao et al. 2017, equation 5), and its loss at the least
possible one, log 4 - 2 JSD for cross entropy (their theorem 1). The exit code is 0 where every
discriminator arrives, 1 where one does not, 2 for bad input.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from shared.interface import (
    IMPLEMENTATIONS,
    Implementation,
    MissingFrameworkError,
    load_implementation,
)
from shared.reference.adam import adam_update
from shared.reference.layers import (
    Array,
    dense_backward,
    dense_forward,
    sigmoid,
    sigmoid_backward,
    tanh_backward,
    tanh_forward,
)
from shared.spec import LOSS_NAMES, AdamSpec, Conventions
from shared.spec.streams import stream
from shared.studies.loss_curves import check_folder

HIDDEN_UNITS = 32
TRAINING_NUMBERS = 400
"""Numbers of either kind that the discriminator is trained on."""
JUDGING_NUMBERS = 20_000
"""Numbers of either kind that its final loss is taken on."""
STEPS = 500

# Twice what was measured over the seeds 0 to 9, with every loss, labels 1 and 0, 0.9 and 0, 0.9 and
# 0.2, different and equal densities: at most 0.0135, 0.0017 and 0.0005. The frameworks print the
# same digits as the reference. The nearest wrong optimum, 0.081 away at most and 0.050 on average,
# is excluded: tests/test_equilibrium.py. Labels further apart than 1 stretch the bounds; measured
# with 1 and -1: 0.0362, 0.0052 and 0.0004.
MAXIMUM_BOUND = 0.03
MEAN_BOUND = 0.004
EXCESS_BOUND = 0.001


@dataclass(frozen=True)
class Densities:
    """The densities of the real and of the fake numbers."""

    real: NormalDist
    fake: NormalDist

    def at(self, x: Array) -> tuple[Array, Array]:
        """Return p_d and p_g at every x."""
        real, fake = (
            np.exp(-np.square((x - p.mean) / p.stdev) / 2.0) / (p.stdev * math.sqrt(2.0 * math.pi))
            for p in (self.real, self.fake)
        )
        return real, fake

    def between_quantiles(self, tail: float, count: int) -> Array:
        """Return `count` equally spaced x, from either's quantile `tail` to either's 1 - tail."""
        ends = [p.inv_cdf(q) for p in (self.real, self.fake) for q in (tail, 1.0 - tail)]
        return np.linspace(min(ends), max(ends), count)


# Different means and widths, so that D* rises and falls again: no straight line of logits fits it.
APART = Densities(NormalDist(-0.5, 0.7), NormalDist(0.8, 1.2))
SAME = Densities(NormalDist(-0.5, 0.7), NormalDist(-0.5, 0.7))


@dataclass(frozen=True)
class Labels:
    """The targets of real and of fake numbers; a cross entropy needs them in [0, 1]."""

    real: float = 1.0
    fake: float = 0.0

    def check(self, loss: str) -> None:
        """Raise ValueError for a label that is not finite, or no probability under `loss`."""
        for name, value in (("real", self.real), ("fake", self.fake)):
            if not math.isfinite(value):
                raise ValueError(f"the {name} label must be a finite number, received {value}")
            if loss != "lsgan" and not 0.0 <= value <= 1.0:
                raise ValueError(
                    f"the {name} label of {loss} must be between 0 and 1, received {value}; "
                    "other labels go with lsgan"
                )

    @property
    def span(self) -> float:
        """The targets' distance, at least 1: least-squares scores and errors grow with it."""
        return max(1.0, abs(self.real - self.fake))


HARD = Labels()


def stratified(density: NormalDist, count: int) -> Array:
    """Return the middle quantiles of `count` equal parts, float64 [count]: a sample with no luck.

    >>> stratified(NormalDist(), 3).round(2).tolist()
    [-0.97, 0.0, 0.97]
    """
    return np.array([density.inv_cdf((i + 0.5) / count) for i in range(count)])


def optimum(densities: Densities, x: Array, labels: Labels = HARD) -> Array:
    """Return D*(x), which minimises every one of the four losses pointwise."""
    real, fake = densities.at(x)
    return (labels.real * real + labels.fake * fake) / (real + fake)


def quadrature_points(densities: Densities) -> Array:
    """Return points out to ten standard deviations of either density.

    On them the trapezoid rule is exact to rounding: the integrands are smooth and end in zeros.
    """
    ends = [p.mean + s * p.stdev for p in (densities.real, densities.fake) for s in (-10.0, 10.0)]
    return np.linspace(min(ends), max(ends), 20_001)


def jensen_shannon(densities: Densities) -> float:
    """Return the Jensen-Shannon divergence in nats: 0 for equal densities, at most log 2."""
    x = quadrature_points(densities)
    real, fake = densities.at(x)
    middle = (real + fake) / 2.0
    terms = real * np.log(real / middle) + fake * np.log(fake / middle)
    return float(np.trapezoid(terms, x)) / 2.0


def least_loss(loss: str, densities: Densities, labels: Labels = HARD) -> float:
    """Return the discriminator's loss at D*, by quadrature: no other one is smaller."""
    x = quadrature_points(densities)
    (real, fake), best = densities.at(x), optimum(densities, x, labels)
    if loss == "lsgan":
        terms = real * (best - labels.real) ** 2 / 2.0 + fake * (best - labels.fake) ** 2 / 2.0
        return float(np.trapezoid(terms, x))
    # real · label + fake · label, the weight of -log D*; the rest is that of -log(1 - D*).
    weight = labels.real * real + labels.fake * fake
    rest = (1.0 - labels.real) * real + (1.0 - labels.fake) * fake
    total = real + fake
    terms = -_weighted_log(weight, total) - _weighted_log(rest, total)
    return float(np.trapezoid(terms, x))


def _weighted_log(weight: Array, total: Array) -> Array:
    """Return weight · log(weight / total), 0 where the weight is."""
    safe = np.where(weight > 0.0, weight, total)
    return weight * np.log(safe / total)


class LineDiscriminator:
    """Numbers [batch] → 32 tanh units → scores [batch]; a sigmoid at the end for `bce_probs`."""

    def __init__(self, loss: str, seed: int) -> None:
        draw = stream(seed, "equilibrium/discriminator")
        slopes = draw.uniform(0.7, 2.0, HIDDEN_UNITS) * draw.choice([-1.0, 1.0], HIDDEN_UNITS)
        # Each unit bends at a place of its own, so that all of the line is covered from the start.
        bends = np.linspace(-4.0, 4.0, HIDDEN_UNITS)
        self.loss = loss
        self.parameters = [
            slopes[None],
            -slopes * bends,
            # Zeros: with equal densities and labels 1 and 0, a logit's optimum from the start. The
            # tests take labels 0.9 and 0 there.
            np.zeros((HIDDEN_UNITS, 1)),
            np.zeros(1),
        ]
        self._moments = [(np.zeros_like(p), np.zeros_like(p)) for p in self.parameters]
        self._step = 0

    def scores(self, x: Array) -> Array:
        """Return what the implementation's loss takes: logits, probabilities or plain scores."""
        return self._forward(x)[0]

    def probability(self, x: Array) -> Array:
        """Return D(x): the sigmoid of a logit, or the score itself."""
        scores = self.scores(x)
        return sigmoid(scores) if self.loss in ("bce", "minimax") else scores

    def gradients(self, x: Array, score_gradient: Array) -> list[Array]:
        """Return the gradient of every parameter, given that of the scores at x [batch]."""
        _, (first, bent, last, squashed) = self._forward(x)
        dy = score_gradient
        if self.loss == "bce_probs":
            dy = sigmoid_backward(squashed, score_gradient)
        dhidden, *last_gradients = dense_backward(last, dy[:, None])
        _, *first_gradients = dense_backward(first, tanh_backward(bent, dhidden))
        return [*first_gradients, *last_gradients]

    def update(self, x: Array, score_gradient: Array, learning_rate: float) -> None:
        """Move every parameter by Adam."""
        self._step += 1
        settings, conventions = AdamSpec(learning_rate, beta1=0.9), Conventions()
        for i, gradient in enumerate(self.gradients(x, score_gradient)):
            self.parameters[i], m, v = adam_update(
                self.parameters[i], gradient, self._moments[i], self._step, settings, conventions
            )
            self._moments[i] = (m, v)

    def _forward(self, x: Array) -> tuple[Array, tuple]:
        hidden, first = dense_forward(x[:, None], self.parameters[0], self.parameters[1])
        hidden, bent = tanh_forward(hidden)
        y, last = dense_forward(hidden, self.parameters[2], self.parameters[3])
        scores = sigmoid(y[:, 0]) if self.loss == "bce_probs" else y[:, 0]
        return scores, (first, bent, last, scores)


@dataclass(frozen=True)
class Arrival:
    """Where a trained discriminator ended: `maximum` and `mean` are |D - D*|.

    The maximum is over the x between the 1 % and 99 % quantiles, the mean over (p_d + p_g) / 2.
    `value` is its loss, by the implementation, and `least` the loss of D*, by quadrature; `span` is
    that of the labels.
    """

    implementation: str
    loss: str
    x: Array
    answers: Array
    maximum: float
    mean: float
    value: float
    least: float
    span: float = 1.0

    @property
    def has_arrived(self) -> bool:
        """Whether D and its loss are within the bounds of D*'s."""
        return (
            self.maximum <= MAXIMUM_BOUND * self.span
            and self.mean <= MEAN_BOUND * self.span
            and abs(self.value - self.least) <= EXCESS_BOUND * self.span**2
        )


def train(
    implementation: Implementation,
    loss: str,
    densities: Densities = APART,
    labels: Labels = HARD,
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> Arrival:
    """Train a discriminator with an implementation's loss, float64, and say where it ended.

    Raises ValueError for labels that the loss does not have or fewer than one step.
    """
    labels.check(loss)
    check_steps(steps)
    network = LineDiscriminator(loss, seed)
    parts = [stratified(p, TRAINING_NUMBERS) for p in (densities.real, densities.fake)]
    x, named = np.concatenate(parts), {"real_label": labels.real, "fake_label": labels.fake}
    for step in range(steps):
        real, fake = np.split(network.scores(x), 2)
        values = implementation.loss(loss, real, fake, **named)
        gradient = np.concatenate(
            [values.discriminator_real_gradient, values.discriminator_fake_gradient]
        )
        # Half a cosine, from 0.05 to 0: it settles instead of circling the optimum.
        network.update(x, gradient, 0.025 * (1.0 + math.cos(math.pi * step / steps)))
    return judge(implementation, network, densities, labels)


def check_steps(steps: int) -> None:
    """Raise ValueError for fewer than one step."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, received {steps}")


def judge(
    implementation: Implementation,
    network: LineDiscriminator,
    densities: Densities,
    labels: Labels = HARD,
) -> Arrival:
    """Hold a discriminator against the optimum."""
    x = densities.between_quantiles(0.01, 801)
    answers, (real, fake) = network.probability(x), densities.at(x)
    difference = np.abs(answers - optimum(densities, x, labels))
    scores = [
        network.scores(stratified(p, JUDGING_NUMBERS)) for p in (densities.real, densities.fake)
    ]
    values = implementation.loss(
        network.loss, scores[0], scores[1], real_label=labels.real, fake_label=labels.fake
    )
    return Arrival(
        implementation.name,
        network.loss,
        x,
        answers,
        maximum=float(difference.max()),
        mean=float(np.average(difference, weights=real + fake)),
        value=float(values.discriminator),
        least=least_loss(network.loss, densities, labels),
        span=labels.span,
    )


def table(arrivals: Sequence[Arrival]) -> str:
    """Return a line for every discriminator."""
    titles = ("implementation", "loss", "max |D-D*|", "mean", "D loss", "of D*")
    lines = ["{:<16}{:<11}{:>11}{:>9}{:>10}{:>10}".format(*titles)]
    lines += [
        f"{a.implementation:<16}{a.loss:<11}{a.maximum:>11.4f}{a.mean:>9.5f}"
        f"{a.value:>10.5f}{a.least:>10.5f}{'' if a.has_arrived else '  not there'}"
        for a in arrivals
    ]
    return "\n".join(lines)


def plot(arrivals: Sequence[Arrival], densities: Densities, labels: Labels, path: Path) -> None:
    """Draw the curves of every implementation against D*, one panel for a loss."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses = list(dict.fromkeys(a.loss for a in arrivals))
    figure = Figure(figsize=(9.5, 3.4 * math.ceil(len(losses) / 2)), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display
    grid = figure.subplots(math.ceil(len(losses) / 2), 2, sharex=True, squeeze=False)
    for axes, loss in zip(grid.flat, losses, strict=False):
        _draw_panel(axes, [a for a in arrivals if a.loss == loss], densities, labels)
        axes.set_title(loss)
    for axes in grid.flat[len(losses) :]:
        axes.axis("off")
    grid.flat[0].legend(fontsize="small", loc="upper right")
    figure.savefig(path, format="png", dpi=110)


def _draw_panel(
    axes: Any, arrivals: Sequence[Arrival], densities: Densities, labels: Labels
) -> None:
    x = arrivals[0].x
    for density, colour, name in zip(
        densities.at(x), ("tab:green", "tab:red"), ("p_d, real", "p_g, fake"), strict=True
    ):
        axes.fill_between(x, density, color=colour, alpha=0.15, linewidth=0, label=name)
    # The curves lie on one another: each is thinner than the one below it.
    widths = np.linspace(9.0, 2.0, len(arrivals))
    colours = ("0.8", "tab:orange", "tab:purple", "tab:cyan")
    for i, (arrival, width) in enumerate(zip(arrivals, widths, strict=True)):
        colour = colours[i % len(colours)]
        axes.plot(x, arrival.answers, color=colour, linewidth=width, label=arrival.implementation)
    best = optimum(densities, x, labels)
    axes.plot(x, best, color="black", linewidth=1.2, linestyle="--", label="optimum D*")
    axes.set(xlabel="x", ylabel="D(x)")
    axes.grid(alpha=0.3)


def build_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m shared.equilibrium", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "implementations",
        nargs="*",
        metavar="IMPLEMENTATION",
        help="reference, pytorch, tf, jax or a dotted module path (default: the reference and "
        "every one whose framework is installed)",
    )
    parser.add_argument("--loss", choices=LOSS_NAMES, help="default: all four")
    parser.add_argument("--real-label", type=float, default=1.0, help="default: %(default)s")
    parser.add_argument("--fake-label", type=float, default=0.0, help="default: %(default)s")
    parser.add_argument("--same", action="store_true", help="equal densities: D* is constant")
    parser.add_argument("--steps", type=int, default=STEPS, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw D against the optimum")
    return parser


def load_implementations(names: Sequence[str]) -> list[Implementation]:
    """Load implementations by name; of no names, the reference and those that are installed."""
    if names:
        return [_load(name) for name in names]
    found = [_load("reference")]
    for name in IMPLEMENTATIONS:
        try:
            found.append(_load(name))
        except MissingFrameworkError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def _load(name: str) -> Implementation:
    return load_implementation("shared.reference.adapter" if name == "reference" else name)


def check_options(labels: Labels, losses: Sequence[str], options: argparse.Namespace) -> None:
    """Raise ValueError for options that make no run, before a framework is imported."""
    for loss in losses:
        labels.check(loss)
    check_steps(options.steps)
    LineDiscriminator(losses[0], options.seed)  # refuses a seed that the streams do not have
    if options.plot:
        check_folder(options.plot)


def run(options: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code."""
    densities = SAME if options.same else APART
    labels = Labels(options.real_label, options.fake_label)
    losses = [options.loss] if options.loss else list(LOSS_NAMES)
    check_options(labels, losses, options)
    implementations = load_implementations(options.implementations)
    for name, p in (("p_d", densities.real), ("p_g", densities.fake)):
        print(f"{name}: normal, mean {p.mean:g}, deviation {p.stdev:g}")
    divergence = jensen_shannon(densities)
    print(f"JSD {divergence:.5f}, -log 4 + 2 JSD = {2.0 * divergence - math.log(4.0):.5f}")
    print(f"labels: real {labels.real:g}, fake {labels.fake:g}; {options.steps} steps", flush=True)
    arrivals = [
        train(i, loss, densities, labels, steps=options.steps, seed=options.seed)
        for loss in losses
        for i in implementations
    ]
    print(table(arrivals))
    if options.plot:
        plot(arrivals, densities, labels, options.plot)
    return 0 if all(a.has_arrived for a in arrivals) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; bad input is one line on stderr."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    # Before a framework is imported: the numbers are small, and a CPU is what they need.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        return run(options)
    except (ValueError, OSError, MissingFrameworkError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
