"""What is found out about an implementation, as data and as text for a terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

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
    lines = _divergence_lines(e.first) if e.first is not None else []
    lines += [f"Note: {escape(note)}" for note in e.notes]
    lines += _verdict_lines(e)
    console.print(
        f"{e.implementation} against the NumPy reference: {e.system}, {e.dtype}", highlight=False
    )
    console.print(_table(e))
    console.print("\n".join(lines), highlight=False)


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


def _divergence_lines(first: Divergence) -> list[str]:
    lines = [
        f"First to differ: {first.array}",
        f"  in {first.stage}, {first.probe}",
        f"  relative L2 {first.relative:.2e}, largest absolute difference {first.largest:.2e}",
    ]
    if first.element or first.received == first.received:
        lines.append(
            f"  worst element {first.element}: received {first.received!r}, "
            f"expected {first.expected!r} ({first.ulp:.3g} ULP)"
        )
    return [escape(line) for line in lines]


def _verdict_lines(e: Explanation) -> list[str]:
    seen = [stage for stage in e.stages if stage.difference is not None]
    if e.verdict == "rounding":
        largest = max((stage.difference or 0.0 for stage in seen), default=0.0)
        return [f"[bold]Verdict: rounding. The largest difference is {largest:.1e}.[/]"]
    if e.verdict == "unexplained":
        agreeing = dict.fromkeys(stage.name for stage in seen if stage.agrees)
        return [
            "[bold]Verdict: unexplained.[/]",
            f"Ruled out: {e.tried} sets of conventions do not reproduce it. "
            f"What agrees: {', '.join(agreeing) or 'nothing'}.",
        ]
    count = "a known trap" if len(e.traps) == 1 else f"{len(e.traps)} known traps"
    lines = [f"[bold]Verdict: {count}.[/]", *(line for x in e.traps for line in _trap_lines(x))]
    if e.alternatives:
        text = "; or ".join(e.alternatives)
        lines.append(f"These probes cannot distinguish it from: {escape(text)}")
    return lines


def _trap_lines(trap: Trap) -> list[str]:
    return [
        f"[bold]- {escape(trap.title)}[/]",
        f"  alone it costs a relative {trap.cost:.2g} in {escape(trap.cost_array)}",
        f"  PyTorch: {escape(trap.fix.pytorch)}",
        f"  TensorFlow: {escape(trap.fix.tf)}",
        f"  JAX: {escape(trap.fix.jax)}",
        f"  docs/porting.md#{trap.fix.row}",
    ]
