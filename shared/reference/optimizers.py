"""One update of a parameter by each optimizer, of Adam in the forms that it gets mistaken for too.

Adam is Kingma & Ba 2015, Algorithm 1.
"""

import numpy as np

from shared.interface import Arrays
from shared.reference.layers import Array
from shared.spec import AdamSpec, Conventions, OptimizerSpec
from shared.spec.optimizers import AdamWSpec, AMSGradSpec, RMSPropSpec


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
    *betas, epsilon = adam_settings(settings, c)
    if c.adam_correction == "float32":
        betas = [float(np.float32(beta)) for beta in betas]
    correction1 = correction2 = 1.0
    if c.adam_bias_correction:  # 1 - βᵗ through expm1: no cancellation for β near 1
        number = step + c.adam_step_offset
        correction1, correction2 = (-np.expm1(number * np.log(beta)) for beta in betas)
    match c.adam_epsilon_placement:
        case "outside":
            update = (m / correction1) / (np.sqrt(v / correction2) + epsilon)
        case "before_correction":
            update = m * np.sqrt(correction2) / correction1 / (np.sqrt(v) + epsilon)
        case "inside_root":
            update = (m / correction1) / np.sqrt(v / correction2 + epsilon)
    own_decay = settings.decay if isinstance(settings, AdamWSpec) else 0.0
    decay = c.adam_decoupled_decay or own_decay
    return parameter - settings.rate_at(step) * (update + decay * parameter)


def optimizer_update(
    parameter: Array,
    gradient: Array,
    kept: tuple[Array, ...],
    step: int,
    settings: OptimizerSpec,
    conventions: Conventions,
) -> tuple[Array, ...]:
    """Return the parameter and what is kept of it after update number `step` (the first is 1).

    `kept` is m and v, of AMSGrad v_max too; the gradient is clipped already. Conventions are
    Adam's; the decays of weights in them are those of every optimizer.
    """
    m, v, *largest = kept
    if isinstance(settings, AMSGradSpec):  # Adam's update with the largest v in place of v
        _, m, v = adam_update(parameter, gradient, (m, v), step, settings, conventions)
        _, beta2, _ = adam_settings(settings, conventions)
        correction = 1.0 - beta2**step if settings.corrected_maximum else 1.0
        most = np.maximum(largest[0], v / correction)
        moved = moved_parameter(parameter, m, most * correction, step, settings, conventions)
        return moved, m, v, most
    if isinstance(settings, AdamSpec):
        return adam_update(parameter, gradient, (m, v), step, settings, conventions)
    gradient = gradient + conventions.adam_weight_decay * parameter
    direction = gradient
    if isinstance(settings, RMSPropSpec):
        v = settings.decay * v + (1.0 - settings.decay) * np.square(gradient)
        if settings.centred:
            m = settings.decay * m + (1.0 - settings.decay) * gradient
        variance = v - np.square(m) if settings.centred else v
        if settings.epsilon_inside_root:
            direction = gradient / np.sqrt(variance + settings.epsilon)
        else:
            direction = gradient / (np.sqrt(variance) + settings.epsilon)
    elif settings.momentum:
        m = settings.momentum * m + gradient
        direction = gradient + settings.momentum * m if settings.nesterov else m
    decayed = direction + conventions.adam_decoupled_decay * parameter
    return parameter - settings.rate_at(step) * decayed, m, v


def clipped(gradients: Arrays, settings: OptimizerSpec) -> Arrays:
    """Return the gradients of a network as its optimizer clips them: see `shared.spec`."""
    if (most := settings.clip_value) is not None:
        gradients = {name: np.clip(g, -most, most) for name, g in gradients.items()}
    if (most := settings.clip_norm_of_each) is not None:
        gradients = {n: _clipped_norm({n: g}, most, settings)[n] for n, g in gradients.items()}
    most = settings.clip_norm
    return gradients if most is None else _clipped_norm(gradients, most, settings)


def _clipped_norm(gradients: Arrays, most: float, settings: OptimizerSpec) -> Arrays:
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients.values()))
    factor = most / max(norm + settings.clip_epsilon, most)
    return {name: factor * g for name, g in gradients.items()}
