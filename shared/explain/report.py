"""An explanation as text for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.explain.distance import Divergence
from shared.explain.verdict import Explanation, Trap


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
