"""An explanation as text for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.explain.verdict import Explanation, Place, Trap

FRAMEWORKS = (("pytorch", "PyTorch"), ("tf", "TensorFlow"), ("jax", "JAX"))


def print_explanation(explanation: Explanation, console: Console) -> None:
    """Print the stages, the first that parts, and the verdict."""
    e = explanation
    console.print(
        f"{e.implementation} against the NumPy reference: {e.system}, {e.dtype}", highlight=False
    )
    console.print(_table(e))
    if e.first is not None:
        _print_place(e.first, console)
    for note in e.notes:
        console.print(f"Note: {escape(note)}", highlight=False)
    _print_verdict(e, console)


def _table(e: Explanation) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("stage", "probe", "largest difference", "of", ""):
        table.add_column(heading, overflow="fold")
    for stage in e.stages:
        if stage.difference is None:
            table.add_row(stage.name, stage.probe, "-", escape(stage.reason), "not seen")
            continue
        mark = "agrees" if stage.agrees else "[bold red]parts[/]"
        row = (stage.name, stage.probe, f"{stage.difference:.1e}", escape(stage.array), mark)
        table.add_row(*row)
    return table


def _print_place(place: Place, console: Console) -> None:
    lines = [
        f"First to part: {place.array}",
        f"  in {place.stage}, {place.probe}",
        f"  relative L2 {place.relative:.2e}, largest absolute difference {place.largest:.2e}",
    ]
    if place.element or place.received == place.received:
        lines.append(
            f"  worst element {place.element}: received {place.received!r}, "
            f"expected {place.expected!r} ({place.ulp:.3g} ULP)"
        )
    console.print("\n".join(escape(line) for line in lines), highlight=False)


def _print_verdict(e: Explanation, console: Console) -> None:
    seen = [stage.difference for stage in e.stages if stage.difference is not None]
    if e.verdict == "rounding":
        largest = max(seen, default=0.0)
        text = f"Verdict: rounding. The largest difference is {largest:.1e}."
        console.print(f"[bold]{text}[/]", highlight=False)
        return
    if e.verdict == "unexplained":
        console.print("[bold]Verdict: unexplained.[/]", highlight=False)
        agreeing = [s.name for s in e.stages if s.difference is not None and s.agrees]
        console.print(
            f"Ruled out: {e.tried} sets of conventions do not reproduce it. "
            f"What agrees: {', '.join(dict.fromkeys(agreeing)) or 'nothing'}.",
            highlight=False,
        )
        return
    count = "a known trap" if len(e.traps) == 1 else f"{len(e.traps)} known traps"
    console.print(f"[bold]Verdict: {count}.[/]", highlight=False)
    for trap in e.traps:
        _print_trap(trap, console)
    if e.alternatives:
        text = "; or ".join(e.alternatives)
        console.print(f"These probes cannot tell it from: {escape(text)}", highlight=False)


def _print_trap(trap: Trap, console: Console) -> None:
    console.print(f"[bold]- {escape(trap.title)}[/]", highlight=False)
    console.print(
        f"  alone it costs a relative {trap.cost:.2g} in {escape(trap.cost_array)}", highlight=False
    )
    for name, called in FRAMEWORKS:
        console.print(f"  {called}: {escape(getattr(trap.fix, name))}", highlight=False)
    console.print(f"  docs/porting.md#{trap.fix.row}", highlight=False)
