"""What is found out about two recordings, as data and as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shared.explain.distance import json_data
from shared.explain.recordings.evidence import Trap
from shared.explain.recordings.pairs import Pair

_SHOWN_PAIRS, _SHOWN_NAMES = 8, 3


@dataclass(frozen=True)
class RecordingReport:
    """What two recordings have in common and where they diverge.

    `parting` is the index in `pairs` of the first that differs, None where all agree. `unmatched`
    names what only one of them holds or what could not be matched without guessing.
    """

    paths: tuple[str, str]
    frameworks: tuple[str, str]
    pairs: tuple[Pair, ...]
    parting: int | None
    traps: tuple[Trap, ...]
    unmatched: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON data; nan and infinities become text."""
        return json_data(vars(self) | {"pairs": [pair.to_dict() for pair in self.pairs]})


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
        *_difference_lines(report),
    ]
    return "\n".join(lines)


def _matching_lines(report: RecordingReport) -> list[str]:
    lines = [
        f"  {p.two.name!r} was taken for {p.one.name!r} by {p.matched_by}"
        for p in report.pairs
        if p.matched_by != "name"
    ]
    arranged: dict[str, list[str]] = {}
    for p in report.pairs:
        for text in (p.arrangement, *p.notes):
            arranged.setdefault(text, []).append(p.one.name)
    lines += [
        f"  {text}: {_some(names)}"
        for text, names in arranged.items()
        if text not in ("as it is", "none")
    ]
    return [*dict.fromkeys(lines), *(f"  {text}" for text in report.unmatched)]


def _some(names: Iterable[str]) -> str:
    unique = list(dict.fromkeys(names))
    more = len(unique) - _SHOWN_NAMES
    return ", ".join(unique[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _difference_lines(report: RecordingReport) -> list[str]:
    if report.parting is None:
        return ["They differ nowhere." if report.pairs else "Nothing could be compared."]
    pair, *others = (pair for pair in report.pairs[report.parting :] if not pair.agrees)
    data = pair.to_dict()
    lines = ["The first difference:", "  step {step}  {first}".format_map(data)]
    if math.isnan(pair.distance.max_abs):
        lines[-1] += ": cannot be compared"
    else:
        one, two = data["worst_values"]
        lines += [
            "  relative L2 {relative_l2:.2g}, bound {bound:.0e} ({dtype})".format_map(data),
            f"  worst element {data['worst']}: {one!r} and {two!r}, "
            "{max_abs:.2g} or {ulp:.3g} ULP apart".format_map(data),
        ]
    lines += [f"then {len(others)} more:"] if others else []
    shown = [pair.to_dict() for pair in others[:_SHOWN_PAIRS]]
    lines += ["  step {step}  {first}  {relative_l2:.2g}".format_map(data) for data in shown]
    lines += ["  …"] if len(others) > _SHOWN_PAIRS else []
    return [*lines, "", *_trap_lines(report.traps)]


def _trap_lines(traps: Iterable[Trap]) -> list[str]:
    if not traps:
        return ["No trap that could be checked explains it; record more (docs/recordings.md)."]
    lines = ["Traps that explain it:"]
    for trap in traps:
        name = trap.field or "no field of Conventions"
        doubt = "" if trap.certain else "  (one of several readings)"
        row = f", docs/porting.md#{trap.anchor}" if trap.anchor else ""
        lines.append(f"  {name}: first {trap.first}, second {trap.second}{row}{doubt}")
        lines.append(f"    in {_some(trap.where)}")
    return lines
