"""One update of a parameter by each optimizer but Adam, which has a file of its own."""

import numpy as np

from shared.interface import Arrays
from shared.reference.adam import adam_settings, adam_update, moved_parameter
from shared.reference.layers import Array
from shared.spec import AdamSpec, Conventions, OptimizerSpec
from shared.spec.optimizers import AMSGradSpec, RMSPropSpec


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
        parts = (_clipped_norm({name: g}, most, settings) for name, g in gradients.items())
        gradients = {name: g for part in parts for name, g in part.items()}
    if (most := settings.clip_norm) is not None:
        gradients = _clipped_norm(gradients, most, settings)
    return gradients


def _clipped_norm(gradients: Arrays, most: float, settings: OptimizerSpec) -> Arrays:
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients.values()))
    factor = most / max(norm + settings.clip_epsilon, most)
    return {name: factor * g for name, g in gradients.items()}
