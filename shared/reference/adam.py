"""Adam in the form of Kingma & Ba 2015, Algorithm 1, and in the forms it gets mistaken for."""

import numpy as np

from shared.reference.layers import Array
from shared.spec import AdamSpec, Conventions
from shared.spec.optimizers import AdamWSpec


def adam_update(
    parameter: Array,
    gradient: Array,
    moments: tuple[Array, Array],
    step: int,
    settings: AdamSpec,
    conventions: Conventions,
) -> tuple[Array, Array, Array]:
    """Return the parameter and both moments after update number `step` (the first is 1)."""
    beta1, beta2, _ = adam_settings(settings, conventions)
    if conventions.adam_weight_decay:
        gradient = gradient + conventions.adam_weight_decay * parameter
    m = beta1 * moments[0] + (1.0 - beta1) * gradient
    v = beta2 * moments[1] + (1.0 - beta2) * np.square(gradient)
    return moved_parameter(parameter, m, v, step, settings, conventions), m, v


def adam_settings(settings: AdamSpec, c: Conventions) -> tuple[float, float, float]:
    """Return β₁, β₂ and ε under some conventions."""
    return (
        settings.beta1 if c.adam_beta1 is None else c.adam_beta1,
        settings.beta2 if c.adam_beta2 is None else c.adam_beta2,
        settings.epsilon if c.adam_epsilon is None else c.adam_epsilon,
    )


# β = 0 has log β = -inf and a correction of 1; update number 0 divides by 0, as in a port.
@np.errstate(divide="ignore", invalid="ignore")
def moved_parameter(
    parameter: Array, m: Array, v: Array, step: int, settings: AdamSpec, c: Conventions
) -> Array:
    """Return the parameter after an update whose moments are already `m` and `v`."""
    update = _direction(m, v, step + c.adam_step_offset, adam_settings(settings, c), c)
    own_decay = settings.decay if isinstance(settings, AdamWSpec) else 0.0
    decay = c.adam_decoupled_decay or own_decay
    return parameter - settings.rate_at(step) * (update + decay * parameter)


def _direction(
    m: Array, v: Array, number: int, settings: tuple[float, float, float], c: Conventions
) -> Array:
    """Return the direction of an update from its moments."""
    betas, epsilon = settings[:2], settings[2]
    if c.adam_correction == "float32":
        betas = float(np.float32(betas[0])), float(np.float32(betas[1]))
    # 1 - βᵗ through expm1: no cancellation for β near 1.
    correction1, correction2 = (-np.expm1(number * np.log(beta)) for beta in betas)
    if not c.adam_bias_correction:
        correction1 = correction2 = 1.0
    match c.adam_epsilon_placement:
        case "before_correction":
            return m * np.sqrt(correction2) / correction1 / (np.sqrt(v) + epsilon)
        case "inside_root":
            return (m / correction1) / np.sqrt(v / correction2 + epsilon)
    return (m / correction1) / (np.sqrt(v / correction2) + epsilon)
