"""The errata of docs/losses.md as numbers: each formula as a source prints it, and as it should be.

`python -m tests.docs.errata` prints each figure as the document must state it.
"""

import math
import sys
from collections.abc import Callable

import numpy as np

from shared.spec import SYSTEMS
from shared.spec.streams import initial_state
from shared.studies.equilibrium import APART, HARD, least_loss, optimum, quadrature_points

# Two batches of the probabilities that D gives to fakes: alike, and one hopeless beside one good.
EVEN, UNEVEN = np.array([0.5, 0.5]), np.array([0.01, 0.95])


# --- [A]: cross entropy ---------------------------------------------------------------------------


def cross_entropy(p: float, y: float) -> float:
    """-y · log p - (1 - y) · log(1 - p), the right one."""
    return -y * math.log(p) - (1.0 - y) * math.log(1.0 - p)


def log_of_the_label(p: float, y: float) -> float:
    """Equations 4-8 and 4-9 as printed: the logarithm is the label's, and p does not occur."""
    del p
    return sum(-w * math.log(w) for w in (y, 1.0 - y) if w > 0.0)  # 0 · log 0 is 0


def minus_for_plus(p: float, y: float) -> float:
    """Equation 4-12 as printed: the second term is subtracted from the first."""
    return -(y * math.log(p) - (1.0 - y) * math.log(1.0 - p))


def second_expectation(over: str, mean: float = APART.fake.mean) -> float:
    """E[log(1 - D*(...))], where D* knows APART: of G(z), or of the latent itself as printed.

    G moves and stretches a standard normal z to APART's fakes; `mean` is where it moves it to.
    """
    z = np.linspace(-10.0, 10.0, 20_001)
    density = np.exp(-np.square(z) / 2.0) / math.sqrt(2.0 * math.pi)
    x = mean + APART.fake.stdev * z if over == "z" else z
    # Beyond ten deviations both densities underflow and D* is 0/0; within, it is not.
    return float(np.trapezoid(density * np.log1p(-optimum(APART, x)), z))


# --- [B]: least squares ---------------------------------------------------------------------------


def pearson_divergence() -> float:
    """∫ (2 p_g - (p_d + p_g))² / (p_d + p_g), what Mao et al. call χ²(p_d + p_g || 2 p_g)."""
    x = quadrature_points(APART)
    real, fake = APART.at(x)
    return float(np.trapezoid(np.square(fake - real) / (real + fake), x))


def twice_generator_criterion(labels: tuple[float, float], generator_label: float) -> float:
    """E_d[(D* - c)²] + E_g[(D* - c)²], the left-hand side of Mao et al.'s equation 6."""
    x = quadrature_points(APART)
    best = optimum(APART, x, dict(zip(HARD, labels, strict=True)))
    return float(np.trapezoid(np.add(*APART.at(x)) * np.square(best - generator_label), x))


def head_inputs(width: int) -> int:
    """Return how many numbers the dense head of dcgan64-lsgan takes."""
    layers = SYSTEMS["dcgan64-lsgan"].replace(width=width).layers("discriminator")
    return layers[-2].output_shape[0]


def head_deviation() -> float:
    """Return the standard deviation of that head's fresh kernel at width 64."""
    state = initial_state(SYSTEMS["dcgan64-lsgan"], 0)
    return float(state["discriminator/dense_5/kernel"].std(dtype=np.float64))


# --- [C], [D], [E] --------------------------------------------------------------------------------


def sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit))


def probability_as_logit(p: float) -> float:
    """-log σ(p): the loss of a probability that is taken for a logit."""
    return -math.log(sigmoid(p))


def learning_rate_ratio(system: str) -> float:
    spec = SYSTEMS[system]
    return spec.generator_optimizer.learning_rate / spec.discriminator_optimizer.learning_rate


def one_over_the_log(d: float) -> float:
    """The reciprocal 1 / log D that stands where log(1 / D) should."""
    with np.errstate(divide="ignore"):
        return float(1.0 / np.log(np.float64(d)))


def slope(function: Callable[[float], float], at: float) -> float:
    return (function(at + 1e-6) - function(at - 1e-6)) / 2e-6


# --- the figures of the document ------------------------------------------------------------------

# number → what is measured → (the value, the text of it that the entry must hold)
FIGURES: dict[int, dict[str, tuple[Callable[[], float], str]]] = {
    1: {
        "as printed, y = 1": (lambda: log_of_the_label(0.1, 1.0), "0"),
        "as printed, y = 0.9": (lambda: log_of_the_label(0.1, 0.9), "0.3251"),
        "right, y = 1, p = 0.1": (lambda: cross_entropy(0.1, 1.0), "2.3026"),
    },
    2: {
        "over x as printed": (lambda: second_expectation("x"), "-0.8937"),
        "over z": (lambda: second_expectation("z"), "-0.5187"),
    },
    3: {
        "saturating, l = -10": (lambda: -sigmoid(-10.0), "-0.0000454"),
        "non-saturating, l = -10": (lambda: -(1.0 - sigmoid(-10.0)), "-0.9999546"),
        "even, saturating": (lambda: np.log1p(-EVEN).sum(), "-1.386"),
        "uneven, saturating": (lambda: np.log1p(-UNEVEN).sum(), "-3.006"),
        "even, non-saturating": (lambda: -np.log(EVEN).sum(), "1.386"),
        "uneven, non-saturating": (lambda: -np.log(UNEVEN).sum(), "4.656"),
    },
    4: {
        "minus, y = 0.9, p = 0.9": (lambda: minus_for_plus(0.9, 0.9), "-0.1354"),
        "plus, y = 0.9, p = 0.9": (lambda: cross_entropy(0.9, 0.9), "0.3251"),
    },
    5: {
        "χ²": (pearson_divergence, "0.7202"),
        "1, -1, 0": (lambda: twice_generator_criterion((1.0, -1.0), 0.0), "0.7202"),
        "1, 0, 1": (lambda: twice_generator_criterion((1.0, 0.0), 1.0), "0.6800"),
    },
    6: {
        "inputs, width 64": (lambda: head_inputs(64), "8192"),
        "inputs, width 32": (lambda: head_inputs(32), "4096"),
        "bound": (lambda: 8192**-0.5, "0.01105"),
        "deviation": (head_deviation, "0.0063"),
    },
    8: {
        "conv28": (lambda: learning_rate_ratio("conv28"), "5"),
        "others": (lambda: learning_rate_ratio("dcgan64"), "1"),
    },
    9: {
        "floor, real": (lambda: probability_as_logit(1.0), "0.3133"),
        "ceiling, real": (lambda: probability_as_logit(0.0), "0.6931"),
        "floor of D": (lambda: probability_as_logit(1.0) + math.log(2.0), "1.0064"),
    },
    10: {
        "1 / log D": (lambda: one_over_the_log(0.5), "-1.4427"),
        "-log D": (lambda: -math.log(0.5), "0.6931"),
    },
    11: {
        "-log D, 0.5": (lambda: -math.log(0.5), "0.6931"),
        "log(1 - D), 0.5": (lambda: math.log(0.5), "-0.6931"),
        "slope of -log D, 0.1": (lambda: slope(lambda d: -math.log(d), 0.1), "-10"),
        "slope of log(1 - D), 0.1": (lambda: slope(lambda d: math.log(1.0 - d), 0.1), "-1.11"),
    },
    12: {
        "loss of D": (lambda: 2.0 * math.log(2.0), "1.3863"),
        "loss of G": (lambda: math.log(2.0), "0.6931"),
        "V": (lambda: -least_loss("bce", APART), "-0.9582"),
    },
}


def main() -> int:
    """Print the figures; exit code 1 where the text of one is not its value."""
    wrong = 0
    for number, figures in FIGURES.items():
        for what, (measure, text) in figures.items():
            value, digits = float(measure()), len(text.partition(".")[2])
            fits = abs(value - float(text)) <= 0.5000001 * 10.0**-digits
            wrong += not fits
            print(f"{number:>2}  {what:<28}{value:>16.7f}  {text}{'' if fits else '  WRONG'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
