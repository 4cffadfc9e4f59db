"""The adversarial losses on scores of shape [batch], each a scalar in their dtype.

    name       discriminator                                   generator
    bce        mean(-log σ(D(x))) + mean(-log(1 - σ(D(z))))    mean(-log σ(D(z)))
    minimax    as bce                                          mean(log(1 - σ(D(z))))
    bce_probs  as bce, with probabilities in place of σ(…)     as bce
    lsgan      mean(½(D(x) - 1)²) + mean(½(D(z) - 0)²)         mean(½(D(z) - 1)²)

Sources: Goodfellow et al. 2014, equation 1 and section 3; Mao et al. 2017, equation 9, with
a = 1 the label of real, b = 0 that of fake and c = 1 that of the generator.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array as Tensor

# torch.nn.BCELoss clamps p(1 - p) at this in every dtype: 1e-12 as a float32.
_GRADIENT_FLOOR = float(np.float32(1e-12))


@jax.custom_jvp
def softplus(x: Tensor) -> Tensor:
    """Return log(1 + eˣ) of each number."""
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@softplus.defjvp
def _softplus_jvp(primals: tuple[Tensor], tangents: tuple[Tensor]) -> tuple[Tensor, Tensor]:
    # jax.nn.softplus differentiates log(eˣ + e⁰), which costs accuracy: docs/losses.md.
    (x,), (dx,) = primals, tangents
    return softplus(x), jax.nn.sigmoid(x) * dx


def binary_cross_entropy_with_logits(scores: Tensor, label: float) -> Tensor:
    """Return -label · log σ(score) - (1 - label) · log(1 - σ(score)) of each score, [batch].

    A term of weight 0 is left out, so that an infinite score never becomes 0 · ∞.
    """
    if label == 1.0:
        return softplus(-scores)
    if label == 0.0:
        return softplus(scores)
    return label * softplus(-scores) + (1.0 - label) * softplus(scores)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def binary_cross_entropy(probabilities: Tensor, label: float) -> Tensor:
    """Return the cross entropy of each probability in [0, 1], [batch], as torch.nn.BCELoss does.

    Both logarithms are clamped at -100, and the denominator p(1 - p) of the gradient at 1e-12.
    """
    log_p = jnp.maximum(jnp.log(probabilities), -100.0)
    log_not_p = jnp.maximum(_log1m(probabilities), -100.0)
    return -label * log_p - (1.0 - label) * log_not_p


@binary_cross_entropy.defjvp
def _binary_cross_entropy_jvp(
    label: float, primals: tuple[Tensor], tangents: tuple[Tensor]
) -> tuple[Tensor, Tensor]:
    (p,), (dp,) = primals, tangents
    gradient = (p - label) / jnp.maximum(p * (1.0 - p), _GRADIENT_FLOOR)
    return binary_cross_entropy(p, label), gradient * dp


def _log1m(p: Tensor) -> Tensor:
    # XLA's float64 log1p on a CPU is off by 120 ULP near -0.41. This is Goldberg 1991, theorem 4:
    # the quotient makes up for the rounding of 1 - p.
    rest = 1.0 - p
    return jnp.where(rest == 1.0, -p, jnp.log(rest) * (p / (1.0 - rest)))


def half_squared_error(scores: Tensor, label: float) -> Tensor:
    """Return ½(score - label)² of each score, [batch]."""
    return 0.5 * jnp.square(scores - label)


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
        return halves.astype(real_scores.dtype)

    def discriminator_real(self, real_scores: Tensor, *, real_label: float = 1.0) -> Tensor:
        """Return the discriminator's loss on the scores of real images."""
        return self._mean(real_scores, real_label).astype(real_scores.dtype)

    def discriminator_fake(self, fake_scores: Tensor, *, fake_label: float = 0.0) -> Tensor:
        """Return the discriminator's loss on the scores of fake images."""
        return self._mean(fake_scores, fake_label).astype(fake_scores.dtype)

    def generator(
        self, fake_scores: Tensor, *, generator_label: float = 1.0, fake_label: float = 0.0
    ) -> Tensor:
        """Return the generator's loss."""
        if self.saturating:
            return (-self._mean(fake_scores, fake_label)).astype(fake_scores.dtype)
        return self._mean(fake_scores, generator_label).astype(fake_scores.dtype)

    def each(self, scores: Tensor, label: float) -> Tensor:
        """Return the loss of each score, [batch]; float32 for bfloat16 and float16 scores.

        Every operation on a bfloat16 rounds to 8 bits, as does the 1/n of the mean's gradient. So
        the loss is computed in float32, as autocast does, and each result is rounded once.
        """
        if scores.dtype.itemsize < 4:
            scores = scores.astype(jnp.float32)
        return self.elementwise(scores, label)

    def _mean(self, scores: Tensor, label: float) -> Tensor:
        """Average `each` over the batch; a shape other than [batch] is a ValueError."""
        if scores.ndim != 1 or scores.shape[0] == 0:
            raise ValueError(
                f"scores must have shape [batch] with batch >= 1, received {tuple(scores.shape)}; "
                "reshape [batch, 1] scores to [batch]"
            )
        return jnp.mean(self.each(scores, label))


LOSSES: dict[str, AdversarialLoss] = {
    "bce": AdversarialLoss(binary_cross_entropy_with_logits),
    "bce_probs": AdversarialLoss(binary_cross_entropy),
    "minimax": AdversarialLoss(binary_cross_entropy_with_logits, saturating=True),
    "lsgan": AdversarialLoss(half_squared_error),
}
