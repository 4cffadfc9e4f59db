"""One update of a parameter by each optimizer but Adam, which has a file of its own."""

import numpy as np

from shared.reference.adam import adam_update
from shared.reference.layers import Array
from shared.spec import AdamSpec, Conventions, OptimizerSpec
from shared.spec.optimizers import RMSPropSpec, SGDSpec


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
    if isinstance(settings, RMSPropSpec):
        direction, m, v = rmsprop_direction(gradient, *kept, settings)
    else:
        (direction, m), v = sgd_direction(gradient, kept[0], settings), kept[1]
    decayed = direction + conventions.adam_decoupled_decay * parameter
    return parameter - settings.learning_rate * decayed, m, v


def rmsprop_direction(
    gradient: Array, mean: Array, mean_square: Array, settings: RMSPropSpec
) -> tuple[Array, Array, Array]:
    """Return the direction, the mean and the mean square; centred, it divides by the deviation."""
    decay, epsilon = settings.decay, settings.epsilon
    mean_square = decay * mean_square + (1.0 - decay) * np.square(gradient)
    if settings.centred:
        mean = decay * mean + (1.0 - decay) * gradient
    variance = mean_square - np.square(mean) if settings.centred else mean_square
    if settings.epsilon_inside_root:
        return gradient / np.sqrt(variance + epsilon), mean, mean_square
    return gradient / (np.sqrt(variance) + epsilon), mean, mean_square


def sgd_direction(gradient: Array, velocity: Array, settings: SGDSpec) -> tuple[Array, Array]:
    """Return the direction and the velocity, which stays 0 without a momentum."""
    if not settings.momentum:
        return gradient, velocity
    velocity = settings.momentum * velocity + gradient
    return gradient + settings.momentum * velocity if settings.nesterov else velocity, velocity
