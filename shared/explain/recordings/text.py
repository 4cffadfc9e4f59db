"""The report as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable

from shared.explain.recordings.report import Pair, RecordingReport, Trap

_SHOWN_PAIRS, _SHOWN_NAMES = 8, 3


def format_report(report: RecordingReport) -> str:
    """Return the report as text for a terminal."""
    names = [f"{p} ({f})" for p, f in zip(report.paths, report.frameworks, strict=True)]
    agreeing = sum(pair.agrees for pair in report.pairs)
    lines = [
        f"first:  {names[0]}",
        f"second: {names[1]}",
        "",
        f"{len(report.pairs)} pairs, {agreeing} agree",
        *_matching_lines(report),
        "",
        *_parting_lines(report),
    ]
    return "\n".join(lines)


def _matching_lines(report: RecordingReport) -> list[str]:
    lines = [
        f"  {p.second!r} was taken for {p.first!r} by {p.matched_by}"
        for p in report.pairs
        if p.matched_by != "name"
    ]
    arranged: dict[str, list[str]] = {}
    for p in report.pairs:
        for text in (p.arrangement, *p.notes):
            arranged.setdefault(text, []).append(p.first)
    for text, names in arranged.items():
        if text not in ("as it is", "none"):
            lines.append(f"  {text}: {_some(names)}")
    return [*dict.fromkeys(lines), *(f"  {text}" for text in report.unmatched)]


def _some(names: Iterable[str]) -> str:
    """Return the first names of several, each once."""
    unique = list(dict.fromkeys(names))
    more = len(unique) - _SHOWN_NAMES
    return ", ".join(unique[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _parting_lines(report: RecordingReport) -> list[str]:
    if report.parting is None:
        return ["They part nowhere." if report.pairs else "Nothing could be compared."]
    lines = ["The first point of parting:", *_pair_lines(report.pairs[report.parting])]
    others = [p for p in report.pairs[report.parting + 1 :] if not p.agrees]
    if others:
        lines.append(f"then {len(others)} more:")
    for pair in others[:_SHOWN_PAIRS]:
        lines.append(f"  step {pair.step}  {pair.first}  {pair.relative_l2:.2g}")
    if len(others) > _SHOWN_PAIRS:
        lines.append("  …")
    return [*lines, "", *_trap_lines(report.traps)]


def _pair_lines(pair: Pair) -> list[str]:
    if math.isnan(pair.max_abs) and not pair.worst:
        return [f"  step {pair.step}  {pair.first}: cannot be compared"]
    first, second = pair.worst_values
    return [
        f"  step {pair.step}  {pair.first}",
        f"  relative L2 {pair.relative_l2:.2g}, bound {pair.bound:.0e} ({pair.dtype})",
        f"  worst element {pair.worst}: {first!r} and {second!r}, "
        f"{pair.max_abs:.2g} or {pair.ulp:.3g} ULP apart",
    ]


def _trap_lines(traps: Iterable[Trap]) -> list[str]:
    lines = []
    for trap in traps:
        name = trap.field or "no field of Conventions"
        doubt = "" if trap.certain else "  (one of several readings)"
        row = f", docs/porting.md#{trap.anchor}" if trap.anchor else ""
        lines.append(f"  {name}: first {trap.first}, second {trap.second}{row}{doubt}")
        lines.append(f"    in {_some(trap.where)}")
    if not lines:
        return ["No trap that could be checked explains it; record more (docs/recordings.md)."]
    return ["Traps that explain it:", *lines]
