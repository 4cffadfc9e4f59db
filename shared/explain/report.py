"""What is found out about an implementation, as data and as text for a terminal."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.explain.catalogue import FIXES, Change, Fix, title_of
from shared.explain.distance import Divergence, json_data

VerdictName = Literal["rounding", "known trap", "unexplained"]


@dataclass(frozen=True)
class Stage:
    """One stage of one probe: its largest difference, or why it was not looked at."""

    name: str
    probe: str = ""
    difference: float | None = None
    array: str = ""
    reason: str = ""
    agrees: bool = True


@dataclass(frozen=True)
class Trap:
    """A mistake with its name: the fields of `Conventions`, what it costs, and how to fix it.

    `cost` is the largest relative difference of any array that it makes alone, at `cost_array`.
    """

    change: Change
    cost: float
    cost_array: str

    @property
    def title(self) -> str:
        """The mistake in words."""
        return title_of(self.change)

    @property
    def fix(self) -> Fix:
        """Row of docs/porting.md and what to write instead."""
        return FIXES[next(iter(self.change))]


@dataclass(frozen=True)
class Explanation:
    """The verdict on one implementation.

    `first` is the first array that differs from the reference, None where none does. `alternatives`
    are other explanations that these probes cannot distinguish from `traps`. `notes` are facts
    found on the way, such as float32 inside a float64 run.
    """

    implementation: str
    system: str
    dtype: str
    verdict: VerdictName
    stages: tuple[Stage, ...]
    bound: float
    first: Divergence | None = None
    traps: tuple[Trap, ...] = ()
    alternatives: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tried: int = 0
    seconds: float = 0.0
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """True where nothing but rounding differs."""
        return self.verdict == "rounding"

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of `Conventions` that the implementation has otherwise."""
        return {name: value for trap in self.traps for name, value in trap.change.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON data; nan and infinities become text."""
        traps = [vars(trap) | {"title": trap.title, **vars(trap.fix)} for trap in self.traps]
        return json_data(vars(self) | {"traps": traps})


def print_explanation(explanation: Explanation, console: Console) -> None:
    """Print the stages, the first array that differs, and the verdict."""
    e = explanation
    console.print(
        f"{e.implementation} against the NumPy reference: {e.system}, {e.dtype}", highlight=False
    )
    console.print(_table(e))
    seen = [stage for stage in e.stages if stage.difference is not None]
    has_element = e.first is not None and not math.isnan(e.first.largest)
    text = render("explanation.j2", e=e, seen=seen, has_element=has_element)
    console.print(text, highlight=False)


def _table(e: Explanation) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("stage", "probe", "largest difference", "of", ""):
        table.add_column(heading, overflow="fold")
    for stage in e.stages:
        if stage.difference is None:
            cells = "-", escape(stage.reason), "not seen"
        else:
            mark = "agrees" if stage.agrees else "[bold red]differs[/]"
            cells = f"{stage.difference:.1e}", escape(stage.array), mark
        table.add_row(stage.name, stage.probe, *cells)
    return table


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
