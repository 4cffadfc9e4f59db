"""What is known of every convention and stage: other values, rows in docs/porting.md, the fixes.

Numbers and texts are in catalogue.toml; values that are words are those of the field's type. The
stages of a step that are compared, what shows each and what can be wrong in it are in stages.toml.
"""

import dataclasses
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import numpy as np

from shared.spec import NETWORKS, AdamSpec, Conventions, NetworkName, SystemSpec

CANONICAL = Conventions()
FIELDS = dataclasses.asdict(CANONICAL)
"""Every convention with its canonical value."""
Change = dict[str, Any]
"""Fields of `Conventions`, and of `dtype` that has none, with their other values."""


@dataclass(frozen=True)
class Fitted:
    """How a number is fitted: on a logarithmic scale or not, and how far one step may go.

    `of_adam` is the field of AdamSpec that holds the number where `Conventions` has none; `first`
    is where a fit begins that does not begin there. The number does nothing without `needs`.
    """

    field: str
    largest_step: float = 1.0
    logarithmic: bool = False
    of_adam: str = ""
    first: float | None = None
    needs: str = ""

    def start(self, base: Conventions, spec: SystemSpec) -> float:
        """Return where a fit begins."""
        value = getattr(base, self.field) if self.first is None else self.first
        if value is None:
            of_discriminator = self.field.startswith("discriminator")
            adam = spec.discriminator_optimizer if of_discriminator else spec.generator_optimizer
            value = getattr(adam, self.of_adam)
        return math.log(value) if self.logarithmic else float(value)


_CATALOGUE = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text("utf-8"))
TOGETHER: dict[str, Change] = _CATALOGUE.pop("together")
"""Several fields that are one mistake, by its name."""
DEFAULTS: dict[str, Change] = _CATALOGUE.pop("defaults")
"""What frameworks do when they are left alone."""
PARTS: dict[str, list[str]] = _CATALOGUE.pop("parts")
"""The fields that show in a network's outputs, in its running statistics, in a loss, and so on."""
ROWS: dict[str, str] = _CATALOGUE.pop("rows")
"""Rows of docs/porting.md of what recordings show beside it."""
FIXES: dict[str, dict[str, str]] = {
    name: {key: entry.get(key) or entry["all"] for key in ("row", "pytorch", "tf", "jax")}
    for name, entry in _CATALOGUE.items()
}
"""The row of docs/porting.md of every convention, and what each framework's user writes."""
KNOWN_NUMBERS = {n: entry["known"] for n, entry in _CATALOGUE.items() if "known" in entry}
LITERAL = {n: math.nextafter(FIELDS[n], math.inf) for n in KNOWN_NUMBERS if FIELDS[n] is not None}
"""A canonical number that is meant: exactly that one stands for what a system has of its own."""
FITTED = {n: Fitted(n, **entry["fit"]) for n, entry in _CATALOGUE.items() if "fit" in entry}
_HINTS = get_type_hints(Conventions).items()
_WORDS = {name: get_args(hint) for name, hint in _HINTS if get_origin(hint) is Literal}
_SWITCHES: dict[str, Any] = {name: (not value,) for name, value in FIELDS.items()}
_VALUES = _SWITCHES | KNOWN_NUMBERS | _WORDS
KNOWN_VALUES = {n: [x for x in _VALUES[n] if x != value] for n, value in FIELDS.items()}
"""The values other than the canonical one that each field is known to take."""


def changes(spec: SystemSpec, parts: Sequence[str]) -> list[Change]:
    """Return every single change to a known value that can show in a step of a system.

    Of the fields of some parts of a step, the first part first: see `PARTS`.
    """
    known = [(field, value) for field, values in KNOWN_VALUES.items() for value in values]
    known += [(field, LITERAL[field]) for field in numbers_of_its_own(spec)]
    known = [(field, value) for field, value in known if _applies(field, value, spec)]
    singles = [{field: value} | needed for field, value in known for needed in needed_by(field)]
    together = [c for c in TOGETHER.values() if all(_applies(n, x, spec) for n, x in c.items())]
    possible = [*together, *singles]  # first what frameworks do when left alone
    return [c for part in parts for c in possible if {*map(part_of, c)} == {part}]


def needed_by(field: str) -> list[Change]:
    """Return the changes of which one must be made for a number of a field to do anything."""
    needs = FITTED[field].needs if field in FITTED else ""
    return [{needs: value} for value in KNOWN_VALUES[needs]] if needs else [{}]


def numbers_of_its_own(spec: SystemSpec) -> list[str]:
    """Return the fields whose number the system of a file says itself, for a layer or for all."""
    layers = [layer for network in NETWORKS for layer in spec.layers(network)]
    fields = ("leaky_relu_slope", "batch_norm_epsilon", "batch_norm_momentum")
    own = [n for n in fields if any(getattr(x, n.split("_")[-1]) is not None for x in layers)]
    return own + [name for name, _ in spec.conventions if name in LITERAL]


def part_of(field: str) -> str:
    """Return the part of a step that a field belongs to; the step itself where it is no other."""
    of_adam = field.startswith("adam_") or field.endswith("learning_rate")
    found = (part for part, fields in PARTS.items() if field in fields)
    return next(found, "Adam" if of_adam else "step")


def _applies(field: str, value: Any, spec: SystemSpec) -> bool:
    optimizers = spec.generator_optimizer, spec.discriminator_optimizer
    if field.startswith("adam_") and not all(isinstance(o, AdamSpec) for o in optimizers):
        return field.endswith("_decay")  # which every optimizer has
    match field:
        case "initializer":  # not in a step
            return False
        case "batch_norm_replicas":
            return spec.batch_size >= 2 * value
        case "batch_part":
            return spec.batch_size >= 4  # one image has no batch statistics
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


def deviations(*conventions: Conventions) -> list[Change]:
    """Return the changes that conventions are made of; those of one mistake stay together."""
    found: list[Change] = []
    for one in conventions:
        left = {name: value for name, value in vars(one).items() if value != FIELDS[name]}
        together = [change for change in TOGETHER.values() if change.items() <= left.items()]
        joined = {field for change in together for field in change}
        parts = [*together, *({n: value} for n, value in left.items() if n not in joined)]
        found += [change for change in parts if change not in found]
    return found


def is_known(change: Change) -> bool:
    """Whether a change is to values of the catalogue, and so none that was fitted."""
    known = (v in KNOWN_VALUES[n] or v == LITERAL.get(n) for n, v in change.items())
    return change in TOGETHER.values() or all(known)


def cost_of(sides: Sequence[Conventions], known: Sequence[Conventions] = (CANONICAL,)) -> float:
    """Return what changes beside known ones cost: 1 each made or undone, more where fitted."""
    ours, theirs = deviations(*sides), deviations(*known)
    apart = [c for c in ours if c not in theirs] + [c for c in theirs if c not in ours]
    return sum(1.0 if is_known(change) else 1.5 for change in apart)


def title_of(change: Change, spec: SystemSpec) -> str:
    """Return a change in words."""
    for name, values in TOGETHER.items():
        if change == values:
            return name
    ((field, value),) = change.items()
    words, canonical = field.replace("_", " "), FIELDS[field]
    if needed_by(field) != [{}]:
        return f"{words}: {_words(value).rstrip(',')}"
    is_its_own = canonical in (None, "as_named") or field in numbers_of_its_own(spec)
    wanted = "the spec's" if is_its_own else _words(canonical)
    return f"{words}: {_words(value)} instead of {wanted}"


def _words(value: Any) -> str:
    """Return a value in words; a short number as float32 holds it is marked as that."""
    if not isinstance(value, float):
        return str(value).replace("_", " ")
    short = float(f"{value:.6g}")
    rounded = float(np.float32(short))
    is_rounded = abs(value - rounded) < 1e-2 * abs(rounded - short)
    return f"{value:.6g}{', rounded to float32,' if is_rounded else ''}"


INITIAL_STAGE = "initial weights"


@dataclass(frozen=True)
class StageKind:
    """One stage: stages.toml says what its fields are."""

    methods: Sequence[str]
    parts: Sequence[str]
    track: str = "step"
    alone: bool = False
    needs: Sequence[str] = ()
    follows: Sequence[str] = ()
    float32: float = 1.0


def network_of(name: str) -> NetworkName:
    """Return the network of a stage or an array; the discriminator where its name has none."""
    return "generator" if "generator" in name else "discriminator"


_STAGES = Path(__file__).with_name("stages.toml").read_text("utf-8")
_OF_NETWORKS = [
    tomllib.loads(_STAGES.replace("{network}", network).replace("{run}", method)).items()
    for network, method in (("discriminator", "discriminate"), ("generator", "generate"))
]
KINDS = {n: StageKind(**x) for both in zip(*_OF_NETWORKS, strict=True) for n, x in both}
"""Every stage but that of the initial weights, in order."""
TRACKS = tuple(dict.fromkeys(kind.track for kind in KINDS.values()))
"""Stages explained together: a port's step need not do what its `generate` or `loss` does."""
STEP_STAGES = tuple(name for name, kind in KINDS.items() if kind.track == "step")
STAGES = (INITIAL_STAGE, *KINDS)
