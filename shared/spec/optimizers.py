"""The settings of each optimizer as data.

What an optimizer keeps of a parameter is `m` and `v`, of its shape: both moments of Adam; of
RMSProp `v` its mean square and `m` its mean, where it is centred; of SGD `m` its velocity. What is
not used stays 0. AMSGrad keeps the largest `v` so far besides, `v_max`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What every optimizer may have: a clipping of its gradients, and a schedule of its rate.

    Before anything else, in this order: `clip_value` bounds every number of a gradient,
    `clip_norm_of_each` the norm of each parameter's gradient (Keras' clipnorm), `clip_norm` that of
    all of a network's together (Pascanu et al. 2013). What has a norm n above its bound c is
    multiplied by c / (n + clip_epsilon): the epsilon is PyTorch's, and 0 in Keras and Optax.

    `schedule` has pairs: after that many updates the learning rate is that factor of its own.
    """

    learning_rate: float
    clip_value: float | None = None
    clip_norm_of_each: float | None = None
    clip_norm: float | None = None
    clip_epsilon: float = 1e-6
    schedule: tuple[tuple[int, float], ...] = ()
    kept: ClassVar[tuple[str, ...]] = ("m", "v")

    def __post_init__(self) -> None:
        updates = [update for update, _ in self.schedule]
        if updates != sorted(set(updates)):
            raise ValueError(f"expected growing numbers of updates in a schedule, not {updates}")

    def rate_at(self, update: int) -> float:
        """Return the learning rate of an update; the first has number 1."""
        reached = [factor for after, factor in self.schedule if after < update]
        return self.learning_rate * (reached[-1] if reached else 1.0)


_LEFT_OUT = {f.name: f.default for f in dataclasses.fields(_Settings) if f.name != "learning_rate"}


@dataclass(frozen=True)
class AdamSpec(_Settings):
    """Adam's settings (Kingma & Ba 2015, Algorithm 1)."""

    learning_rate: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    epsilon: float = 1e-8


@dataclass(frozen=True)
class AdamWSpec(AdamSpec):
    """AdamW's: decay · learning rate · parameter is taken away too (Loshchilov & Hutter 2019)."""

    decay: float = 0.01


@dataclass(frozen=True)
class AMSGradSpec(AdamSpec):
    """AMSGrad's: an update divides by the root of the largest v so far (Reddi et al. 2018).

    `corrected_maximum`: the largest v / (1 - beta2ᵗ) so far is what is kept, as in Optax.
    """

    corrected_maximum: bool = False
    kept = ("m", "v", "v_max")


@dataclass(frozen=True)
class RMSPropSpec(_Settings):
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
class SGDSpec(_Settings):
    """SGD's settings: v ← momentum · v + g, then p ← p - rate · v (Nesterov: g + momentum · v)."""

    learning_rate: float = 1e-2
    momentum: float = 0.0
    nesterov: bool = False


OptimizerSpec = AdamSpec | RMSPropSpec | SGDSpec
OPTIMIZERS: dict[str, type[OptimizerSpec]] = {
    "adam": AdamSpec,
    "adamw": AdamWSpec,
    "amsgrad": AMSGradSpec,
    "rmsprop": RMSPropSpec,
    "sgd": SGDSpec,
}


def optimizer_to_dict(optimizer: OptimizerSpec) -> dict[str, Any]:
    """Return an optimizer as plain JSON data, of another than Adam with its `kind`.

    Clipping and a schedule are there only where it has them.
    """
    kind = next(name for name, known in OPTIMIZERS.items() if type(optimizer) is known)
    fields = dataclasses.asdict(optimizer).items()
    own = {name: x for name, x in fields if name not in _LEFT_OUT or x != _LEFT_OUT[name]}
    return ({} if kind == "adam" else {"kind": kind}) | own


def optimizer_from_dict(data: dict[str, Any]) -> OptimizerSpec:
    """Return the optimizer of `optimizer_to_dict`; a file may leave out what has a default.

    Raises TypeError for a field that its kind does not have, and ValueError for an unknown kind
    and for a schedule whose updates do not grow.
    """
    given = dict(data)
    kind = given.pop("kind", "adam")
    if kind not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {kind!r}; expected one of {', '.join(OPTIMIZERS)}")
    if "schedule" in given:
        given["schedule"] = tuple((update, factor) for update, factor in given["schedule"])
    return OPTIMIZERS[kind](**given)
