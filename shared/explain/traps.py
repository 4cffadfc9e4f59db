"""The changes of `Conventions` that are tried, and what is to be said of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from shared.explain.fixes import FIXES, Fix
from shared.spec import Conventions, SystemSpec

CANONICAL = Conventions()

# Numbers that frameworks and well-known code have. Others are fitted.
KNOWN_NUMBERS: dict[str, tuple[float, ...]] = {
    "batch_norm_epsilon": (1e-3, 1e-6, 1e-8),
    "batch_norm_momentum": (0.01, 0.9, 0.99, 0.2),
    "batch_norm_replicas": (2, 4),
    "leaky_relu_slope": (0.01, 0.3, 0.1, 0.0),
    "discriminator_loss_scale": (0.5, 2.0),
    "lsgan_scale": (1.0,),
    "real_label": (0.9, 0.0),
    "fake_label": (0.1, 1.0, -1.0),
    "generator_label": (0.9, 0.0),
    "generator_learning_rate": (1e-3, 1e-4, 2e-4),
    "discriminator_learning_rate": (1e-3, 1e-4),
    "adam_beta1": (0.9, 0.0),
    "adam_beta2": (0.99, 0.9),
    "adam_epsilon": (1e-7, 1e-5),
    "adam_step_offset": (1, -1),
    "adam_weight_decay": (1e-2,),
}
# Several fields that are one mistake.
TOGETHER: dict[str, dict[str, Any]] = {
    "swapped labels": {"real_label": 0.0, "fake_label": 1.0},
    "one learning rate for both": {
        "generator_learning_rate": 2e-4,
        "discriminator_learning_rate": 2e-4,
    },
}
NOT_IN_A_STEP = {"initializer"}


@dataclass(frozen=True)
class Change:
    """Some fields of `Conventions` with their other values."""

    values: tuple[tuple[str, Any], ...]

    def of(self, base: Conventions) -> Conventions | None:
        """Return `base` with the change; None where it has changed one of the fields already."""
        if any(getattr(base, field) != getattr(CANONICAL, field) for field, _ in self.values):
            return None
        changed = base.replace(**dict(self.values))
        return None if changed == base else changed


def changes(spec: SystemSpec) -> list[Change]:
    """Return every single change to a known value that can show in a system."""
    singles = [
        Change(((field, value),))
        for field, values in _known_values().items()
        for value in values
        if _applies(field, value, spec)
    ]
    return singles + [Change(tuple(values.items())) for values in TOGETHER.values()]


def _known_values() -> dict[str, tuple[Any, ...]]:
    """Return the values other than the canonical one that each field is known to take."""
    hints = get_type_hints(Conventions)
    found: dict[str, tuple[Any, ...]] = {}
    for field in fields(Conventions):
        hint, canonical = hints[field.name], getattr(CANONICAL, field.name)
        if field.name in NOT_IN_A_STEP:
            continue
        if field.name in KNOWN_NUMBERS:
            values: tuple[Any, ...] = KNOWN_NUMBERS[field.name]
        elif get_origin(hint) is Literal:
            values = get_args(hint)
        else:
            values = (not canonical,)
        found[field.name] = tuple(value for value in values if value != canonical)
    return found


def _applies(field: str, value: Any, spec: SystemSpec) -> bool:
    if field == "batch_norm_replicas":
        return spec.batch_size >= 2 * value
    if field == "lsgan_scale":
        return spec.loss == "lsgan"
    if field == "probability_clipping":
        return spec.loss == "bce_probs"
    if field == "discriminator_step_offset":
        return spec.discriminator_steps + value >= 1
    if field == "generator_objective":
        own = "saturating" if spec.loss == "minimax" else "non_saturating"
        return value != own
    if field == "generator_batch":
        return value != spec.generator_batch
    if field in ("generator_output", "discriminator_output"):
        network: Literal["generator", "discriminator"] = (
            "generator" if field == "generator_output" else "discriminator"
        )
        squashing = [x.kind for x in spec.layers(network) if x.kind in ("tanh", "sigmoid")]
        return value != (squashing[0] if squashing else "none")
    return True


def cost_of(conventions: Conventions) -> float:
    """Return how much a set of changes asks one to believe: 1 each, more for an unknown number."""
    return sum(1.0 if is_known(changed) else 1.5 for changed in deviations(conventions))


def deviations(conventions: Conventions) -> list[dict[str, Any]]:
    """Return the changes that conventions are made of; those of one mistake stand together."""
    left = {
        field.name: getattr(conventions, field.name)
        for field in fields(Conventions)
        if getattr(conventions, field.name) != getattr(CANONICAL, field.name)
    }
    found = []
    for values in TOGETHER.values():
        if all(left.get(field) == value for field, value in values.items()):
            found.append(values)
            left = {field: value for field, value in left.items() if field not in values}
    return found + [{field: value} for field, value in left.items()]


def is_known(change: dict[str, Any]) -> bool:
    """Return whether a change is to values that are known, and not fitted."""
    known = _known_values()
    return all(value in known.get(field, ()) for field, value in change.items()) or (
        change in TOGETHER.values()
    )


def title_of(change: dict[str, Any]) -> str:
    """Return a change in words."""
    for name, values in TOGETHER.items():
        if change == values:
            return name
    ((field, value),) = change.items()
    if field == "dtype":
        return f"it computes in {value}"
    canonical = getattr(CANONICAL, field)
    wanted = "the spec's" if canonical in (None, "as_named") else _words(canonical)
    return f"{field.replace('_', ' ')}: {_words(value)} instead of {wanted}"


def _words(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace("_", " ")


def fix_of(change: dict[str, Any]) -> Fix:
    """Return the row of docs/porting.md and what to write in each framework."""
    return FIXES[next(iter(change))]


# --- numbers that are fitted --------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """How a number is fitted: on a logarithmic scale or not, and how far one step may go.

    `of_adam` is the field of AdamSpec that holds the number where `Conventions` has none.
    """

    field: str
    largest_step: float = 1.0
    logarithmic: bool = False
    of_adam: str = ""

    def start(self, base: Conventions, spec: SystemSpec) -> float:
        """Return where a fit begins."""
        value = getattr(base, self.field)
        if value is None:
            of_generator = not self.field.startswith("discriminator")
            adam = spec.generator_optimizer if of_generator else spec.discriminator_optimizer
            value = getattr(adam, self.of_adam)
        return math.log(value) if self.logarithmic else float(value)

    def value(self, theta: float) -> float:
        """Return the number that a point on the scale of the fit stands for."""
        return float(np.exp(theta)) if self.logarithmic else float(theta)


FITTED = {
    fitted.field: fitted
    for fitted in (
        Fitted("batch_norm_epsilon", 3.0, logarithmic=True),
        Fitted("batch_norm_momentum"),
        Fitted("leaky_relu_slope"),
        Fitted("discriminator_loss_scale", 10.0),
        Fitted("lsgan_scale", 10.0),
        Fitted("real_label"),
        Fitted("fake_label"),
        Fitted("generator_label"),
        Fitted("generator_learning_rate", 3.0, logarithmic=True, of_adam="learning_rate"),
        Fitted("discriminator_learning_rate", 3.0, logarithmic=True, of_adam="learning_rate"),
        Fitted("adam_beta1", 0.3, of_adam="beta1"),
        Fitted("adam_beta2", 0.3, of_adam="beta2"),
        Fitted("adam_epsilon", 3.0, logarithmic=True, of_adam="epsilon"),
        Fitted("adam_weight_decay"),
    )
}


def as_conventions(base: Conventions, names: Sequence[str], theta: np.ndarray) -> Conventions:
    """Return `base` with the numbers that a point of a fit stands for."""
    return base.replace(
        **{name: FITTED[name].value(float(t)) for name, t in zip(names, theta, strict=True)}
    )
