"""One update of a parameter by each optimizer but Adam, which has a file of its own."""

import numpy as np

from shared.reference.adam import adam_update
from shared.reference.layers import Array
from shared.spec import AdamSpec, Conventions, OptimizerSpec
from shared.spec.optimizers import RMSPropSpec


def optimizer_update(
    parameter: Array,
    gradient: Array,
    kept: tuple[Array, Array],
    step: int,
    settings: OptimizerSpec,
    conventions: Conventions,
) -> tuple[Array, Array, Array]:
    """Return the parameter, m and v after update number `step` (the first is 1) of any optimizer.

    Conventions are Adam's; the decays of weights in them are those of every optimizer.
    """
    if isinstance(settings, AdamSpec):
        return adam_update(parameter, gradient, kept, step, settings, conventions)
    gradient = gradient + conventions.adam_weight_decay * parameter
    (m, v), direction = kept, gradient
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
    return parameter - settings.learning_rate * decayed, m, v
