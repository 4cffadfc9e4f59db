"""What is found out about an implementation, as data and as text for a terminal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.markup import escape

from shared.explain.catalogue import DEFAULTS, FIXES, INITIAL_STAGE, Change
from shared.explain.distance import Divergence, json_data

VerdictName = Literal["rounding", "named", "partly named", "unexplained"]
"""Nothing differs; all of it, some of it, or nothing of it has a name."""


@dataclass(frozen=True)
class Stage:
    """One stage of one probe: its largest difference, or why it was not looked at.

    A stage of a step is computed from what the implementation itself handed to it.
    """

    name: str
    probe: str = ""
    difference: float | None = None
    array: str = ""
    reason: str = ""
    agrees: bool = True


@dataclass(frozen=True)
class Located:
    """A stage that no convention explains: where it differs, beside what is found already.

    `arrays` are all that differ, `array` the first; `tried` sets of conventions are ruled out.
    `note` is what the numbers suggest.
    """

    stage: str
    probe: str = ""
    array: str = ""
    relative: float | None = None
    arrays: tuple[str, ...] = ()
    tried: int = 0
    note: str = ""


@dataclass(frozen=True)
class Trap:
    """A mistake with its name: the fields of `Conventions`, what it costs, and how to fix it.

    `title` is the mistake in words, `stage` the first that shows it, `cost` the largest relative
    difference of any array that it makes alone, at `cost_array`. `network` alone has it; "" where
    that shows nothing.
    """

    title: str
    stage: str
    fields: Change
    cost: float
    cost_array: str
    network: str = ""

    @property
    def fix(self) -> dict[str, str]:
        """Row of docs/porting.md and what to write instead."""
        return FIXES[next(iter(self.fields))]


@dataclass
class Explanation:
    """The verdict on one implementation.

    `first` is the first array that differs from the reference, None where none does. `traps` are
    named, and `located` what has no name. `error` is what the implementation raised. `findings` are
    other facts, such as numbers that are others at each call.
    """

    implementation: str
    system: str
    dtype: str
    stages: list[Stage]
    bound: float
    first: Divergence | None = None
    traps: list[Trap] = field(default_factory=list)
    located: list[Located] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    tried: int = 0
    seconds: float = 0.0
    missing: dict[str, str] = field(default_factory=dict)
    error: str = ""

    @property
    def verdict(self) -> VerdictName:
        """Whether anything was noticed, and how much of it has a name."""
        if self.traps:
            return "partly named" if self.located or self.error else "named"
        return "unexplained" if self.located or self.findings or self.first else "rounding"

    @property
    def agrees(self) -> bool:
        """True where nothing but rounding differs."""
        return self.verdict == "rounding"

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of `Conventions` that the implementation has otherwise."""
        fields = {name: value for trap in self.traps for name, value in trap.fields.items()}
        for trap in self.traps:
            if trap.network and "image_channels" in trap.fields:  # its values say which network
                fields["image_channels"] = f"reversed_by_{trap.network[0]}"
        return fields

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON data; nan and infinities become text."""
        own = {n: value for n, value in vars(self).items() if n not in ("traps", "missing")}
        places = [vars(p) | {"note": p.note or f"{p.tried} sets ruled out"} for p in self.located]
        weights = [f"{p.stage}: {p.note}" for p in self.located if p.stage == INITIAL_STAGE]
        parts = {
            "verdict": self.verdict,
            "findings": [*self.findings, *self.left_alone, *weights],
            "named": [vars(trap) | trap.fix for trap in self.traps],
            "located": places,
            "agrees": self.agreeing,
            "not_seen": [f"{stage}: {reason}" for stage, reason in self.missing.items()],
        }
        return json_data(own | parts)

    @property
    def named(self) -> list[str]:
        """The mistakes that have a name, in words."""
        return [trap.title for trap in self.traps]

    @property
    def left_alone(self) -> list[str]:
        """The frameworks of whose defaults three or more are named, with their fields."""
        of = {n: [f for f, v in self.fields.items() if d.get(f) == v] for n, d in DEFAULTS.items()}
        return [f"defaults of {n}: {', '.join(same)}" for n, same in of.items() if len(same) >= 3]

    @property
    def agreeing(self) -> list[str]:
        """The stages that agree with the reference as it is."""
        differing = {s.name for s in self.stages if not s.agrees}
        seen = (s.name for s in self.stages if s.difference is not None)
        return [name for name in dict.fromkeys(seen) if name not in differing]


def print_stage(rows: Sequence[Stage], seconds: float, console: Console) -> None:
    """Print a stage of all probes as one line of at most 80 columns."""
    worst = max(rows, key=lambda r: math.inf if not r.agrees else r.difference or 0.0, default=None)
    if worst is not None:
        console.print(render("stage.j2", row=worst, seconds=seconds), highlight=False)


def render(template: str, **values: Any) -> str:
    """Return the text for a terminal that a template of this room gives, without its last break."""
    environment = Environment(
        loader=PackageLoader("shared.explain"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["literal"] = escape
    return environment.get_template(template).render(values).rstrip("\n")
