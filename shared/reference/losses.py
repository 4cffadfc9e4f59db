"""The adversarial losses in float64 with hand-written gradients.

Softplus(x) = log(1 + eˣ) carries everything on logits: -log σ(x) = softplus(-x) and
-log(1 - σ(x)) = softplus(x). Sources: Goodfellow et al. 2014, equation 1 and section 3 (minimax
and the non-saturating generator); Mao et al. 2017, equation 2 (least squares).
"""

import numpy as np

from shared.interface import LossValues
from shared.reference.layers import Array, sigmoid
from shared.spec import LOSS_NAMES, Conventions
from shared.spec.systems import check_choice

_LOG_FLOOR = -100.0  # torch.nn.BCELoss clamps its logarithms here
# and the denominator p(1 - p) of its gradient here, in every dtype: 1e-12 as a float32.
_GRADIENT_FLOOR = float(np.float32(1e-12))
_KERAS_EPSILON = 1e-7


def softplus(x: Array) -> Array:
    """Return log(1 + eˣ) without overflow or cancellation."""
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def loss_values(
    loss: str, real_scores: Array, fake_scores: Array, conventions: Conventions | None = None
) -> LossValues:
    """Return both losses of scores [batch] and their gradients.

    Raises ValueError for an unknown loss or scores that are not one-dimensional.
    """
    conventions = conventions or Conventions()
    real, fake = _checked(loss, real_scores), _checked(loss, fake_scores)
    scale = conventions.discriminator_loss_scale
    value_real, gradient_real = discriminator_half(loss, real, conventions.real_label, conventions)
    value_fake, gradient_fake = discriminator_half(loss, fake, conventions.fake_label, conventions)
    value_generator, gradient_generator = generator_loss(loss, fake, conventions)
    return LossValues(
        discriminator=np.asarray(scale * (value_real + value_fake)),
        generator=np.asarray(value_generator),
        discriminator_real_gradient=scale * gradient_real,
        discriminator_fake_gradient=scale * gradient_fake,
        generator_fake_gradient=gradient_generator,
    )


def _checked(loss: str, scores: Array) -> Array:
    check_choice("loss", loss, LOSS_NAMES)
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"scores must have shape [batch], received {scores.shape}")
    return scores


def discriminator_half(
    loss: str, scores: Array, label: float, conventions: Conventions
) -> tuple[float, Array]:
    """Return the reduced loss of one batch against one label, and its gradient [batch]."""
    if loss in ("bce", "minimax"):
        values, gradient = _bce(scores, label)
    elif loss == "bce_probs":
        values, gradient = _bce_on_probabilities(scores, label, conventions.probability_clipping)
    else:
        difference = scores - label
        values = conventions.lsgan_scale * np.square(difference)
        gradient = 2.0 * conventions.lsgan_scale * difference
    if conventions.loss_reduction == "sum":
        return float(values.sum()), gradient
    return float(values.mean()), gradient / values.size


def generator_loss(loss: str, scores: Array, conventions: Conventions) -> tuple[float, Array]:
    """Return the generator's reduced loss on fake scores, and its gradient [batch].

    A saturating generator descends minus the discriminator's fake half; any other one the
    discriminator's own loss with the label turned around.
    """
    own = "saturating" if loss == "minimax" else "non_saturating"
    objective = conventions.generator_objective
    if (own if objective == "as_named" else objective) == "saturating":
        value, gradient = discriminator_half(loss, scores, conventions.fake_label, conventions)
        return -value, -gradient
    return discriminator_half(loss, scores, conventions.generator_label, conventions)


def _bce(scores: Array, label: float) -> tuple[Array, Array]:
    """-label · log σ(x) - (1 - label) · log(1 - σ(x)); a term of weight 0 is left out, not 0·∞."""
    values, gradient = np.zeros_like(scores), np.zeros_like(scores)
    if label != 0.0:
        values, gradient = label * softplus(-scores), -label * sigmoid(-scores)
    if label != 1.0:
        values = values + (1.0 - label) * softplus(scores)
        gradient = gradient + (1.0 - label) * sigmoid(scores)
    return values, gradient


def _bce_on_probabilities(probabilities: Array, label: float, clipping: str) -> tuple[Array, Array]:
    """Cross entropy on probabilities, by default with torch.nn.BCELoss' two clamps."""
    p = probabilities
    if clipping == "epsilon_1e-7":
        p = np.clip(probabilities, _KERAS_EPSILON, 1.0 - _KERAS_EPSILON)
    with np.errstate(divide="ignore", invalid="ignore"):  # scores need not be probabilities
        log_p, log_not_p = np.log(p), np.log1p(-p)
    if clipping == "log_at_minus_100":
        log_p, log_not_p = np.maximum(log_p, _LOG_FLOOR), np.maximum(log_not_p, _LOG_FLOOR)
    terms = [(label, log_p), (1.0 - label, log_not_p)]
    values = -sum((weight * log for weight, log in terms if weight != 0.0), np.zeros_like(p))
    denominator = p * (1.0 - p)
    if clipping == "log_at_minus_100":
        denominator = np.maximum(denominator, _GRADIENT_FLOOR)
    with np.errstate(divide="ignore", invalid="ignore"):
        gradient = (p - label) / denominator
    return values, np.where(p == probabilities, gradient, 0.0)
