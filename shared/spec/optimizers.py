"""The settings of each optimizer as data.

What an optimizer keeps of a parameter is `m` and `v`, of its shape: both moments of Adam; of
RMSProp `v` its mean square and `m` its mean, where it is centred; of SGD `m` its velocity. What is
not used stays 0.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AdamSpec:
    """Adam's settings (Kingma & Ba 2015, Algorithm 1)."""

    learning_rate: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    epsilon: float = 1e-8


@dataclass(frozen=True)
class RMSPropSpec:
    """RMSProp's settings (Tieleman & Hinton 2012); centred: Graves 2013, equations 38 to 40.

    `decay` is the weight of the old mean square: PyTorch's alpha, Keras' rho. The epsilon is added
    to the root, as in PyTorch, or inside it, as in Keras and Optax.
    """

    learning_rate: float = 1e-3
    decay: float = 0.9
    epsilon: float = 1e-7
    centred: bool = False
    epsilon_inside_root: bool = False


@dataclass(frozen=True)
class SGDSpec:
    """SGD's settings: v ← momentum · v + g, then p ← p - rate · v (Nesterov: g + momentum · v)."""

    learning_rate: float = 1e-2
    momentum: float = 0.0
    nesterov: bool = False


OptimizerSpec = AdamSpec | RMSPropSpec | SGDSpec
OPTIMIZERS = {"adam": AdamSpec, "rmsprop": RMSPropSpec, "sgd": SGDSpec}


def optimizer_to_dict(optimizer: OptimizerSpec) -> dict[str, Any]:
    """Return an optimizer as plain JSON data, of another than Adam with its `kind`."""
    kind = next(name for name, known in OPTIMIZERS.items() if type(optimizer) is known)
    return ({} if kind == "adam" else {"kind": kind}) | dataclasses.asdict(optimizer)


def optimizer_from_dict(data: dict[str, Any]) -> OptimizerSpec:
    """Return the optimizer of `optimizer_to_dict`; a file may leave out what has a default.

    Raises TypeError for a field that its kind does not have, and ValueError for an unknown kind.
    """
    kind = data.get("kind", "adam")
    if kind not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {kind!r}; expected one of {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[kind](**{name: value for name, value in data.items() if name != "kind"})
