"""Adam in the form of Kingma & Ba 2015, Algorithm 1, and in the forms it gets mistaken for."""

from __future__ import annotations

import numpy as np

from shared.reference.layers import Array
from shared.spec import AdamSpec, Conventions


def adam_update(
    parameter: Array,
    gradient: Array,
    moments: tuple[Array, Array],
    step: int,
    settings: AdamSpec,
    conventions: Conventions,
) -> tuple[Array, Array, Array]:
    """Return the parameter and both moments after update number `step` (the first is 1)."""
    beta1 = settings.beta1 if conventions.adam_beta1 is None else conventions.adam_beta1
    beta2 = settings.beta2 if conventions.adam_beta2 is None else conventions.adam_beta2
    epsilon = settings.epsilon if conventions.adam_epsilon is None else conventions.adam_epsilon
    if conventions.adam_weight_decay:
        gradient = gradient + conventions.adam_weight_decay * parameter
    m = beta1 * moments[0] + (1.0 - beta1) * gradient
    v = beta2 * moments[1] + (1.0 - beta2) * np.square(gradient)
    number = step + conventions.adam_step_offset
    # β = 0 has log β = -inf and a correction of 1; update number 0 divides by 0, as in a port.
    with np.errstate(divide="ignore", invalid="ignore"):
        update = _update(m, v, number, (beta1, beta2, epsilon), conventions)
    return parameter - settings.learning_rate * update, m, v


def _update(
    m: Array, v: Array, number: int, settings: tuple[float, float, float], c: Conventions
) -> Array:
    """Return the direction of an update from its moments."""
    beta1, beta2, epsilon = settings
    # 1 - βᵗ through expm1: no cancellation for β near 1.
    correction1, correction2 = (-np.expm1(number * np.log(beta)) for beta in (beta1, beta2))
    if not c.adam_bias_correction:
        correction1 = correction2 = 1.0
    match c.adam_epsilon_placement:
        case "before_correction":
            return m * np.sqrt(correction2) / correction1 / (np.sqrt(v) + epsilon)
        case "inside_root":
            return (m / correction1) / np.sqrt(v / correction2 + epsilon)
    return (m / correction1) / (np.sqrt(v / correction2) + epsilon)
