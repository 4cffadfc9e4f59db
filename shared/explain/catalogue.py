"""What is known of every convention: its other values, its row in docs/porting.md, the fixes.

Numbers and texts are in catalogue.toml; values that are words are those of the field's type.
"""

from __future__ import annotations

import functools
import math
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from shared.spec import Conventions, NetworkName, SystemSpec

CANONICAL = Conventions()
FIELDS = {field.name: getattr(CANONICAL, field.name) for field in fields(Conventions)}
"""Every convention with its canonical value."""


Change = dict[str, Any]
"""Fields of `Conventions`, and of `dtype` that has none, with their other values."""


@dataclass(frozen=True)
class Fix:
    """The anchor of a row of docs/porting.md, and what each framework's user writes."""

    row: str
    pytorch: str
    tf: str
    jax: str


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


_CATALOGUE = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text("utf-8"))
TOGETHER: dict[str, Change] = _CATALOGUE.pop("together")
"""Several fields that are one mistake, by its name."""
FIXES = {
    name: Fix(entry["row"], *(entry.get(key) or entry["all"] for key in ("pytorch", "tf", "jax")))
    for name, entry in _CATALOGUE.items()
}
KNOWN_NUMBERS: dict[str, tuple[float, ...]] = {
    name: tuple(entry["known"]) for name, entry in _CATALOGUE.items() if "known" in entry
}
FITTED = {n: Fitted(n, **entry["fit"]) for n, entry in _CATALOGUE.items() if "fit" in entry}


def with_change(base: Conventions, change: Change) -> Conventions | None:
    """Return `base` with a change; None where it has changed one of the fields already."""
    if any(getattr(base, field) != FIELDS[field] for field in change):
        return None
    changed = base.replace(**change)
    return None if changed == base else changed


def changes(spec: SystemSpec) -> list[Change]:
    """Return every single change to a known value that can show in a step of a system."""
    singles = [
        {field: value}
        for field, values in known_values().items()
        for value in values
        if field != "initializer" and _applies(field, value, spec)
    ]
    return singles + list(TOGETHER.values())


@functools.cache
def known_values() -> dict[str, tuple[Any, ...]]:
    """Return the values other than the canonical one that each field is known to take."""
    hints = get_type_hints(Conventions)
    found: dict[str, tuple[Any, ...]] = {}
    for field, canonical in FIELDS.items():
        values: tuple[Any, ...] = KNOWN_NUMBERS.get(field, (not canonical,))
        if get_origin(hints[field]) is Literal:
            values = get_args(hints[field])
        found[field] = tuple(value for value in values if value != canonical)
    return found


def _applies(field: str, value: Any, spec: SystemSpec) -> bool:
    match field:
        case "batch_norm_replicas":
            return spec.batch_size >= 2 * value
        case "lsgan_scale":
            return spec.loss == "lsgan"
        case "probability_clipping":
            return spec.loss == "bce_probs"
        case "discriminator_step_offset":
            return spec.discriminator_steps + value >= 1
        case "generator_objective":
            return value != ("saturating" if spec.loss == "minimax" else "non_saturating")
        case "generator_batch":
            return value != spec.generator_batch
        case "generator_output" | "discriminator_output":
            network = cast(NetworkName, field.removesuffix("_output"))
            squashing = [x.kind for x in spec.layers(network) if x.kind in ("tanh", "sigmoid")]
            return value != (squashing[0] if squashing else "none")
    return True


def cost_of(conventions: Conventions) -> float:
    """Return how much a set of changes asks one to believe: 1 each, more for a fitted number."""
    return sum(1.0 if _is_known(change) else 1.5 for change in deviations(conventions))


def deviations(conventions: Conventions) -> list[Change]:
    """Return the changes that conventions are made of; those of one mistake stay together."""
    left = {n: v for n, x in FIELDS.items() if (v := getattr(conventions, n)) != x}
    found = []
    for values in TOGETHER.values():
        if values.items() <= left.items():
            found.append(values)
            left = {field: value for field, value in left.items() if field not in values}
    return found + [{field: value} for field, value in left.items()]


def _is_known(change: Change) -> bool:
    known = known_values()
    return change in TOGETHER.values() or all(v in known[field] for field, v in change.items())


def title_of(change: Change) -> str:
    """Return a change in words."""
    for name, values in TOGETHER.items():
        if change == values:
            return name
    ((field, value),) = change.items()
    if field == "dtype":
        return f"it computes in {value}"
    canonical = FIELDS[field]
    wanted = "the spec's" if canonical in (None, "as_named") else _words(canonical)
    return f"{field.replace('_', ' ')}: {_words(value)} instead of {wanted}"


def _words(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace("_", " ")
