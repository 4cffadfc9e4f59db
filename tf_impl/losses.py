"""The adversarial losses on scores of shape [batch], each a scalar in their dtype.

    name       discriminator                                   generator
    bce        mean(-log σ(D(x))) + mean(-log(1 - σ(D(z))))    mean(-log σ(D(z)))
    minimax    as bce                                          mean(log(1 - σ(D(z))))
    bce_probs  as bce, with probabilities in place of σ(…)     as bce
    lsgan      mean(½(D(x) - 1)²) + mean(½(D(z) - 0)²)         mean(½(D(z) - 1)²)

Sources: Goodfellow et al. 2014, equation 1 and section 3; Mao et al. 2017, equation 9, with
a = 1 the label of real, b = 0 that of fake and c = 1 that of the generator.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

# torch.nn.BCELoss clamps p(1 - p) at this in every dtype: 1e-12 as a float32.
_GRADIENT_FLOOR = float(np.float32(1e-12))


def binary_cross_entropy_with_logits(scores: Tensor, label: float) -> Tensor:
    """Return -label · log σ(score) - (1 - label) · log(1 - σ(score)) of each score, [batch].

    At ±∞ this op returns nan where the truth is finite or infinite: docs/losses.md.
    """
    labels = tf.fill(tf.shape(scores), tf.constant(label, scores.dtype))

    # The op's own gradient is a sum of 1, -label and e^-|x|. In a tf.function TensorFlow may add
    # the terms in another order, so that a confident score's gradient cancels: docs/losses.md.
    @tf.custom_gradient
    def cross_entropy(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        def gradient(upstream: Tensor) -> Tensor:
            if label == 1.0:
                return -upstream * _sigmoid(-x)
            if label == 0.0:
                return upstream * _sigmoid(x)
            return upstream * ((1.0 - label) * _sigmoid(x) - label * _sigmoid(-x))

        return tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=x), gradient

    return cross_entropy(scores)


def _sigmoid(x: Tensor) -> Tensor:
    # tf.sigmoid is off by 4.5 ULP in float32.
    exponential = tf.exp(tf.where(x >= 0.0, -x, x))
    return tf.where(x >= 0.0, tf.ones_like(x), exponential) / (1.0 + exponential)


def binary_cross_entropy(probabilities: Tensor, label: float) -> Tensor:
    """Return the cross entropy of each probability in [0, 1], [batch], as torch.nn.BCELoss does.

    Both logarithms are clamped at -100, and the denominator p(1 - p) of the gradient at 1e-12.
    """
    # Not Keras' BinaryCrossentropy, which clips the probability at 1e-7 and computes in float32.
    dtype = probabilities.dtype
    label, one = tf.constant(label, dtype), tf.constant(1.0, dtype)
    floor, denominator_floor = tf.constant(-100.0, dtype), tf.constant(_GRADIENT_FLOOR, dtype)

    @tf.custom_gradient
    def cross_entropy(p: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        log_p = tf.maximum(tf.math.log(p), floor)
        log_not_p = tf.maximum(tf.math.log1p(-p), floor)

        def gradient(upstream: Tensor) -> Tensor:
            return upstream * (p - label) / tf.maximum(p * (one - p), denominator_floor)

        return -label * log_p - (one - label) * log_not_p, gradient

    return cross_entropy(probabilities)


def half_squared_error(scores: Tensor, label: float) -> Tensor:
    """Return ½(score - label)² of each score, [batch]."""
    return 0.5 * tf.square(scores - label)


@dataclass(frozen=True)
class AdversarialLoss:
    """A pair of losses made of one `elementwise(scores, label)`, averaged over the batch.

    A saturating generator descends minus the discriminator's loss on fake images; any other one
    descends the same elementwise loss with the label turned around.
    """

    elementwise: Callable[[Tensor, float], Tensor]
    saturating: bool = False

    def discriminator(
        self,
        real_scores: Tensor,
        fake_scores: Tensor,
        *,
        real_label: float = 1.0,
        fake_label: float = 0.0,
    ) -> Tensor:
        """Return the discriminator's loss, the sum of its real and its fake half."""
        halves = self._mean(real_scores, real_label) + self._mean(fake_scores, fake_label)
        return tf.cast(halves, real_scores.dtype)

    def discriminator_real(self, real_scores: Tensor, *, real_label: float = 1.0) -> Tensor:
        """Return the discriminator's loss on the scores of real images."""
        return tf.cast(self._mean(real_scores, real_label), real_scores.dtype)

    def discriminator_fake(self, fake_scores: Tensor, *, fake_label: float = 0.0) -> Tensor:
        """Return the discriminator's loss on the scores of fake images."""
        return tf.cast(self._mean(fake_scores, fake_label), fake_scores.dtype)

    def generator(
        self, fake_scores: Tensor, *, generator_label: float = 1.0, fake_label: float = 0.0
    ) -> Tensor:
        """Return the generator's loss."""
        if self.saturating:
            return tf.cast(-self._mean(fake_scores, fake_label), fake_scores.dtype)
        return tf.cast(self._mean(fake_scores, generator_label), fake_scores.dtype)

    def each(self, scores: Tensor, label: float) -> Tensor:
        """Return the loss of each score, [batch]; float32 for bfloat16 and float16 scores.

        Every operation on a bfloat16 rounds to 8 bits, as does the 1/n of the mean's gradient. So
        the loss is computed in float32, as autocast does, and each result is rounded once.
        """
        if scores.dtype.size < 4:
            scores = tf.cast(scores, tf.float32)
        return self.elementwise(scores, label)

    def _mean(self, scores: Tensor, label: float) -> Tensor:
        """Average `each` over the batch; a shape other than [batch] is a ValueError."""
        if scores.shape.rank != 1 or scores.shape[0] == 0:
            raise ValueError(
                f"scores must have shape [batch] with batch >= 1, received {tuple(scores.shape)}; "
                "reshape [batch, 1] scores to [batch]"
            )
        return tf.reduce_mean(self.each(scores, label))


LOSSES: dict[str, AdversarialLoss] = {
    "bce": AdversarialLoss(binary_cross_entropy_with_logits),
    "bce_probs": AdversarialLoss(binary_cross_entropy),
    "minimax": AdversarialLoss(binary_cross_entropy_with_logits, saturating=True),
    "lsgan": AdversarialLoss(half_squared_error),
}
