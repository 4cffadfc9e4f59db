"""The optimal discriminator, found by training: `python -m shared.equilibrium` prints how near.

For two known densities on a line, p_d of the real and p_g of the fake numbers, a small NumPy
discriminator is trained with the loss and the score gradients of an implementation. It has to
reach D* of `shared.studies.optimum`, and its loss the least possible one. The exit code is 0 where
every discriminator does, 1 where one does not, 2 for bad input.
"""

import argparse
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared import interface
from shared.files.atomic import require_place
from shared.interface import Array, Implementation
from shared.reference import layers
from shared.reference.adam import adam_update
from shared.run.console import command, print_error, shown_progress, text_table
from shared.run.number_types import seed_number, whole
from shared.spec import LOSS_NAMES, AdamSpec, Conventions
from shared.spec.streams import stream
from shared.studies import optimum as known
from shared.studies.optimum import APART, HARD, Densities, Labels, stratified

HIDDEN_UNITS = 32
TRAINING_NUMBERS = 400  # numbers of either kind that the discriminator is trained on
JUDGING_NUMBERS = 20_000  # numbers of either kind that its final loss is taken on
STEPS = 500

# Twice what was measured over the seeds 0 to 9, with every loss, labels 1 and 0, 0.9 and 0, 0.9 and
# 0.2, different and equal densities: at most 0.0135, 0.0017 and 0.0005, by all in the same digits.
# The nearest wrong optimum is 0.081 away at most and 0.050 on average: test_equilibrium.py. Labels
# further apart than 1 stretch the bounds; measured with 1 and -1: 0.0362, 0.0052 and 0.0004.
MAXIMUM_BOUND = 0.03
MEAN_BOUND = 0.004
EXCESS_BOUND = 0.001


class LineDiscriminator:
    """Numbers [batch] → 32 tanh units → scores [batch]; a sigmoid at the end for `bce_probs`."""

    def __init__(self, loss: str, seed: int) -> None:
        draw = stream(seed, "equilibrium/discriminator")
        slopes = draw.uniform(0.7, 2.0, HIDDEN_UNITS) * draw.choice([-1.0, 1.0], HIDDEN_UNITS)
        # Each unit bends at another place, so that all of the line is covered from the start.
        bends = np.linspace(-4.0, 4.0, HIDDEN_UNITS)
        self.loss = loss
        # The last layer is zeros: a logit's optimum for equal densities and labels 1 and 0.
        self.parameters = [slopes[None], -slopes * bends, np.zeros((HIDDEN_UNITS, 1)), np.zeros(1)]
        self._moments = [(np.zeros_like(p), np.zeros_like(p)) for p in self.parameters]
        self._step = 0

    def scores(self, x: Array) -> Array:
        """Return what the implementation's loss takes: logits, probabilities or plain scores."""
        return self._forward(x)[0]

    def probability(self, x: Array) -> Array:
        """Return D(x): the sigmoid of a logit, or the score itself."""
        scores = self.scores(x)
        return layers.sigmoid(scores) if self.loss in ("bce", "minimax") else scores

    def gradients(self, x: Array, score_gradient: Array) -> list[Array]:
        """Return the gradient of every parameter, given that of the scores at x [batch]."""
        dy, found = score_gradient[:, None], list[Array]()
        for backward in reversed(self._forward(x)[1]):
            dy, own = backward(dy)
            found = [*own.values(), *found]
        return found

    def update(self, x: Array, score_gradient: Array, learning_rate: float) -> None:
        """Move every parameter by Adam."""
        self._step += 1
        rest = (self._step, AdamSpec(learning_rate, beta1=0.9), Conventions())
        for i, gradient in enumerate(self.gradients(x, score_gradient)):
            moved = adam_update(self.parameters[i], gradient, self._moments[i], *rest)
            self.parameters[i], self._moments[i] = moved[0], moved[1:]

    def _forward(self, x: Array) -> tuple[Array, list[layers.Backward]]:
        """Return the scores, and the backward pass of each layer."""
        hidden, first = layers.dense_forward(x[:, None], *self.parameters[:2])
        hidden, bent = layers.tanh_forward(hidden)
        y, last = layers.dense_forward(hidden, *self.parameters[2:])
        if self.loss != "bce_probs":
            return y[:, 0], [first, bent, last]
        y, squashed = layers.sigmoid_forward(y)
        return y[:, 0], [first, bent, last, squashed]


@dataclass(frozen=True)
class Result:
    """How near a trained discriminator is: `maximum`, from 1 % to 99 %, and `mean` are |D - D*|.

    `value` is its loss, `least` that of D*, by quadrature; `span` is that of the labels.
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
    def is_optimal(self) -> bool:
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
) -> Result:
    """Train a discriminator with an implementation's loss, float64, and return how near it came."""
    network = LineDiscriminator(loss, seed)
    x = np.concatenate([stratified(p, TRAINING_NUMBERS) for p in (densities.real, densities.fake)])
    for step in range(steps):
        real, fake = np.split(network.scores(x), 2)
        values = implementation.loss(loss, real, fake, **labels.keywords)
        gradients = values.discriminator_real_gradient, values.discriminator_fake_gradient
        # Half a cosine, from 0.05 to 0: it settles instead of circling the optimum.
        rate = 0.025 * (1.0 + math.cos(math.pi * step / steps))
        network.update(x, np.concatenate(gradients), rate)
    return judge(implementation, network, densities, labels)


def judge(
    implementation: Implementation,
    network: LineDiscriminator,
    densities: Densities,
    labels: Labels = HARD,
) -> Result:
    """Compare a discriminator with the optimum."""
    x = densities.between_quantiles(0.01, 801)
    answers = network.probability(x)
    difference = np.abs(answers - known.optimum(densities, x, labels))
    numbers = (stratified(p, JUDGING_NUMBERS) for p in (densities.real, densities.fake))
    real, fake = map(network.scores, numbers)
    values = implementation.loss(network.loss, real, fake, **labels.keywords)
    return Result(
        implementation.name,
        network.loss,
        x,
        answers,
        maximum=float(difference.max()),
        mean=float(np.average(difference, weights=np.add(*densities.at(x)))),
        value=float(values.discriminator),
        least=known.least_loss(network.loss, densities, labels),
        span=labels.span,
    )


def table(results: Sequence[Result]) -> str:
    """Return a line for every discriminator."""
    rows = [["implementation", "loss", "max |D-D*|", "mean", "D loss", "of D*", ""]]
    for r in results:
        figures = [f"{r.maximum:.4f}", f"{r.mean:.5f}", f"{r.value:.5f}", f"{r.least:.5f}"]
        rows.append([r.implementation, r.loss, *figures, "" if r.is_optimal else "not optimal"])
    return text_table(rows, "<<>>>><")


def _plot(results: Sequence[Result], path: Path) -> None:
    from matplotlib.figure import Figure

    losses, x = list(dict.fromkeys(r.loss for r in results)), results[0].x
    rows = math.ceil(len(losses) / 2)
    figure = Figure(figsize=(9.5, 3.4 * rows), layout="constrained")
    panels = list(figure.subplots(rows, 2, sharex=True, squeeze=False).flat)
    kinds = {"p_d, real": "tab:green", "p_g, fake": "tab:red"}
    for axes, loss in zip(panels, losses, strict=False):
        for density, (name, colour) in zip(APART.at(x), kinds.items(), strict=True):
            axes.fill_between(x, density, color=colour, alpha=0.15, linewidth=0, label=name)
        shown = [r for r in results if r.loss == loss]
        # The curves lie on one another: each is thinner than the one below it.
        widths = np.linspace(9.0, 2.0, len(shown))
        colours = itertools.cycle(("0.8", "tab:orange", "tab:purple", "tab:cyan"))
        for r, width, colour in zip(shown, widths, colours, strict=False):
            axes.plot(x, r.answers, color=colour, linewidth=width, label=r.implementation)
        best = known.optimum(APART, x)
        axes.plot(x, best, color="black", linewidth=1.2, linestyle="--", label="optimum D*")
        axes.set(xlabel="x", ylabel="D(x)", title=loss)
        axes.grid(alpha=0.3)
    for axes in panels[len(losses) :]:
        axes.axis("off")
    panels[0].legend(fontsize="small", loc="upper right")
    figure.savefig(path, format="png", dpi=110)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, "default: %(default)s"
    names = "reference, pytorch, tf, jax or a dotted module path"
    named = f"{names} (default: the reference and every one whose framework is installed)"
    add("implementations", nargs="*", metavar="IMPLEMENTATION", help=named)
    add("--loss", choices=LOSS_NAMES, help="default: all four")
    add("--steps", type=whole(1), default=STEPS, help=default)
    add("--seed", type=seed_number, default=0, help=default)
    add("--plot", type=Path, metavar="PNG", help="draw D against the optimum")


def load_implementations(names: Sequence[str]) -> list[Implementation]:
    """Load implementations by name; of no names, the reference and those that are installed."""
    if names:
        return [interface.load_implementation(name) for name in names]
    found = []
    for name in ("reference", *interface.IMPLEMENTATIONS):
        try:
            found.append(interface.load_implementation(name))
        except interface.MissingFrameworkError as error:
            print_error(f"left out: {error}")
    return found


def _run(options: argparse.Namespace) -> int:
    losses = [options.loss] if options.loss else LOSS_NAMES
    require_place(options.plot)
    interface.use_cpu()  # the numbers are few
    implementations = load_implementations(options.implementations)
    for name, p in (("p_d", APART.real), ("p_g", APART.fake)):
        print(f"{name}: normal, mean {p.mean:g}, deviation {p.stdev:g}")
    divergence = known.jensen_shannon(APART)
    print(f"JSD {divergence:.5f}, -log 4 + 2 JSD = {2.0 * divergence - math.log(4.0):.5f}")
    print(f"{options.steps} steps", flush=True)
    results = []
    with shown_progress("discriminators", len(losses) * len(implementations)) as advance:
        for loss, implementation in itertools.product(losses, implementations):
            found = train(implementation, loss, steps=options.steps, seed=options.seed)
            results.append(found)
            advance(1)
    print(table(results))
    if options.plot:
        _plot(results, options.plot)
    return 0 if all(r.is_optimal for r in results) else 1


main = command("python -m shared.equilibrium", __doc__, _add_options, _run)
