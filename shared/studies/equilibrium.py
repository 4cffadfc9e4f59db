"""The optimal discriminator, found by training: `python -m shared.equilibrium` prints how near.

For two known densities on a line, p_d of the real and p_g of the fake numbers, the last layer of a
small network is trained with the loss and the score gradients of an implementation. It has to
reach D*(x) = (real_label · p_d + fake_label · p_g) / (p_d + p_g), which is the optimum whichever
loss is descended (Goodfellow et al. 2014, proposition 1; Mao et al. 2017, equation 5), and its loss
the least possible one. Exit code 0 where every one does, 1 where one does not, 2 for bad input.
"""

import argparse
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy.special import rel_entr, xlogy

from shared import interface
from shared.files.atomic import require_place
from shared.interface import Array, Implementation
from shared.reference.layers import sigmoid, sigmoid_forward
from shared.run.console import add_implementations, command, seed_number, text_table, tracked, whole
from shared.run.pictures import plot
from shared.spec import LOSS_NAMES
from shared.spec.streams import stream

HIDDEN_UNITS = 32
TRAINING_NUMBERS = 2_000  # numbers of either kind that the discriminator is trained on
JUDGING_NUMBERS = 20_000  # numbers of either kind that its final loss is taken on
STEPS = 500

# Twice what was measured over the seeds 0 to 9, with every loss, labels 1 and 0, 0.9 and 0, 0.9 and
# 0.2, different and equal densities, and with lsgan 1 and -1: at most 0.0064, 0.0007 and 0.0002.
# The nearest wrong optimum is 0.081 away at most and 0.050 on average: test_equilibrium.py.
MAXIMUM_BOUND = 0.013
MEAN_BOUND = 0.0015
EXCESS_BOUND = 0.0004


class Densities(NamedTuple):
    """The densities of the real and of the fake numbers."""

    real: NormalDist
    fake: NormalDist

    def at(self, x: Array) -> tuple[Array, Array]:
        """Return p_d and p_g at every x."""
        return np.vectorize(self.real.pdf)(x), np.vectorize(self.fake.pdf)(x)

    def between_quantiles(self, tail: float, count: int) -> Array:
        """Return `count` equally spaced x, from either's quantile `tail` to either's 1 - tail."""
        ends = [p.inv_cdf(q) for p in self for q in (tail, 1.0 - tail)]
        return np.linspace(min(ends), max(ends), count)


# Different means and widths, so that D* rises and falls again: no straight line of logits fits it.
APART = Densities(NormalDist(-0.5, 0.7), NormalDist(0.8, 1.2))
SAME = Densities(NormalDist(-0.5, 0.7), NormalDist(-0.5, 0.7))

Labels = Mapping[str, float]
"""The targets of real and of fake numbers; a cross entropy needs them in [0, 1]."""
HARD: Labels = {"real_label": 1.0, "fake_label": 0.0}


def stratified(density: NormalDist, count: int) -> Array:
    """Return the middle quantiles of `count` equal parts, float64 [count]: a sample with no luck.

    >>> stratified(NormalDist(), 3).round(2).tolist()
    [-0.97, 0.0, 0.97]
    """
    return np.array([density.inv_cdf((i + 0.5) / count) for i in range(count)])


def optimum(densities: Densities, x: Array, labels: Labels = HARD) -> Array:
    """Return D*(x), which minimises every one of the four losses pointwise."""
    real, fake = densities.at(x)
    return (labels["real_label"] * real + labels["fake_label"] * fake) / (real + fake)


def quadrature_points(densities: Densities) -> Array:
    """Return points out to ten deviations, where the trapezoid rule is exact to rounding."""
    ends = [p.mean + s * p.stdev for p in densities for s in (-10.0, 10.0)]
    return np.linspace(min(ends), max(ends), 20_001)


def jensen_shannon(densities: Densities) -> float:
    """Return the Jensen-Shannon divergence in nats: 0 for equal densities, at most log 2."""
    x = quadrature_points(densities)
    real, fake = densities.at(x)
    middle = (real + fake) / 2.0
    return float(np.trapezoid(rel_entr(real, middle) + rel_entr(fake, middle), x)) / 2.0


def least_loss(loss: str, densities: Densities, labels: Labels = HARD) -> float:
    """Return the discriminator's loss at D*, by quadrature: no other one is smaller.

    For a cross entropy and hard labels it is log 4 - 2 JSD (Goodfellow et al. 2014, theorem 1).
    """
    x, of_real, of_fake = quadrature_points(densities), labels["real_label"], labels["fake_label"]
    (real, fake), best = densities.at(x), optimum(densities, x, labels)
    if loss == "lsgan":
        terms = real * (best - of_real) ** 2 / 2.0 + fake * (best - of_fake) ** 2 / 2.0
        return float(np.trapezoid(terms, x))
    # The weights of -log D* and of -log(1 - D*); where one is 0, so is its term.
    weights = of_real * real + of_fake * fake, (1.0 - of_real) * real + (1.0 - of_fake) * fake
    return float(np.trapezoid(-sum(xlogy(w, w / (real + fake)) for w in weights), x))


def units(x: Array, seed: int) -> Array:
    """Return what the hidden layer makes of x: tanh units that cover all of the line, and a 1."""
    draw, bends = stream(seed, "equilibrium/discriminator"), np.linspace(-4.0, 4.0, HIDDEN_UNITS)
    slopes = draw.uniform(0.7, 2.0, HIDDEN_UNITS)
    return np.column_stack([np.tanh(slopes * (x[:, None] - bends)), np.ones_like(x)])


class Result(NamedTuple):
    """How near a trained discriminator is: `maximum`, from 1 % to 99 %, and `mean` are |D - D*|.

    `value` is its loss, `least` that of D*, by quadrature.
    """

    implementation: str
    loss: str
    x: Array
    answers: Array
    maximum: float
    mean: float
    value: float
    least: float

    @property
    def is_optimal(self) -> bool:
        """Whether D and its loss are within the bounds of D*'s."""
        is_near = self.maximum <= MAXIMUM_BOUND and self.mean <= MEAN_BOUND
        return is_near and abs(self.value - self.least) <= EXCESS_BOUND


def train(
    implementation: Implementation,
    loss: str,
    densities: Densities = APART,
    labels: Labels = HARD,
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> Result:
    """Train a discriminator with an implementation's loss, float64, and return how near it came."""

    def scored(x: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Return the scores of x, of `bce_probs` probabilities, and their slopes' way to logits."""
        logits = units(x, seed) @ weights
        if loss != "bce_probs":
            return logits, lambda slopes: slopes
        scores, backward = sigmoid_forward(logits)
        return scores, lambda slopes: backward(slopes)[0]

    weights = np.zeros(HIDDEN_UNITS + 1)
    x = np.concatenate([stratified(p, TRAINING_NUMBERS) for p in densities])
    # The change of the weights, small where the units are alike, that moves every logit against
    # its number's own slope: of least squares, the whole way in a step (ridge regression).
    own = units(x, seed)
    change = np.linalg.solve(own.T @ own + np.eye(own.shape[1]), TRAINING_NUMBERS * own.T)
    for _ in range(steps):
        scores, to_logits = scored(x)
        real, fake = np.split(scores, 2)
        values = implementation.loss(loss, real, fake, **labels)
        slopes = [values.discriminator_real_gradient, values.discriminator_fake_gradient]
        weights -= change @ to_logits(np.concatenate(slopes))
    x = densities.between_quantiles(0.01, 801)
    scores, _ = scored(x)
    answers = sigmoid(scores) if loss in ("bce", "minimax") else scores
    difference = np.abs(answers - optimum(densities, x, labels))
    real, fake = (scored(stratified(p, JUDGING_NUMBERS))[0] for p in densities)
    return Result(
        implementation.name,
        loss,
        x,
        answers,
        maximum=float(difference.max()),
        mean=float(np.average(difference, weights=np.add(*densities.at(x)))),
        value=float(implementation.loss(loss, real, fake, **labels).discriminator),
        least=least_loss(loss, densities, labels),
    )


def table(results: Sequence[Result]) -> str:
    """Return a line for every discriminator."""
    rows = [["implementation", "loss", "max |D-D*|", "mean", "D loss", "of D*", ""]]
    for r in results:
        figures = [f"{r.maximum:.4f}", f"{r.mean:.5f}", f"{r.value:.5f}", f"{r.least:.5f}"]
        rows.append([r.implementation, r.loss, *figures, "" if r.is_optimal else "not optimal"])
    return text_table(rows, "<<>>>><")


def _plot(results: Sequence[Result], path: Path) -> None:
    losses, x = list(dict.fromkeys(r.loss for r in results)), results[0].x
    side = math.isqrt(len(losses))  # of one or of four
    kinds = {"p_d, real": "tab:green", "p_g, fake": "tab:red"}
    with plot(path, 5.2 * side, 3.7 * side, side, side, sharex=True) as panels:
        for axes, loss in zip(panels.flat, losses, strict=True):
            for density, (name, colour) in zip(APART.at(x), kinds.items(), strict=True):
                axes.fill_between(x, density, color=colour, alpha=0.15, linewidth=0, label=name)
            shown = [r for r in results if r.loss == loss]
            # The curves lie on one another: each is thinner than the one below it.
            widths = np.linspace(9.0, 2.0, len(shown))
            colours = itertools.cycle(("0.8", "tab:orange", "tab:purple", "tab:cyan"))
            for r, width, colour in zip(shown, widths, colours, strict=False):
                axes.plot(x, r.answers, color=colour, linewidth=width, label=r.implementation)
            best = optimum(APART, x)
            axes.plot(x, best, color="black", linewidth=1.2, linestyle="--", label="optimum D*")
            axes.set(xlabel="x", ylabel="D(x)", title=loss)
        panels[0, 0].legend(fontsize="small", loc="upper right")


def _add_options(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, "default: %(default)s"
    add_implementations(parser, ("reference", *interface.IMPLEMENTATIONS))
    add("--loss", choices=LOSS_NAMES, help="default: all four")
    add("--steps", type=whole(1), default=STEPS, metavar="N", help=default)
    add("--seed", type=seed_number, default=0, metavar="S", help=default)
    add("--plot", type=Path, metavar="PNG", help="draw D against the optimum")


def _run(options: argparse.Namespace) -> int:
    losses = [options.loss] if options.loss else LOSS_NAMES
    require_place(options.plot)
    interface.use_cpu()  # the numbers are few
    implementations = map(interface.load_implementation, options.implementations)
    cases = list(itertools.product(losses, implementations))
    for name, p in (("p_d", APART.real), ("p_g", APART.fake)):
        print(f"{name}: normal, mean {p.mean:g}, deviation {p.stdev:g}")
    divergence = jensen_shannon(APART)
    print(f"JSD {divergence:.5f}, -log 4 + 2 JSD = {2.0 * divergence - math.log(4.0):.5f}")
    print(f"{options.steps} steps", flush=True)
    results = [
        train(implementation, loss, steps=options.steps, seed=options.seed)
        for loss, implementation in tracked("discriminators", cases)
    ]
    print(table(results))
    if options.plot:
        _plot(results, options.plot)
    return 0 if all(r.is_optimal for r in results) else 1


main = command("python -m shared.equilibrium", __doc__, _add_options, _run)
