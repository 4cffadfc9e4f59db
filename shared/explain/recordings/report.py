"""What is found out about two recordings, as data and as text for a terminal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_SHOWN_PAIRS, _SHOWN_NAMES = 8, 3


@dataclass(frozen=True)
class Pair:
    """Two recorded tensors that belong together, and how far they are apart.

    `arrangement` says how the second's axes were brought into the first's order. `worst` is the
    index of the largest absolute difference, in the first's axes. Numbers are nan where the shapes
    do not fit. `ulp` is that of the worst element, in units of the first's number.
    """

    step: int
    first: str
    second: str
    matched_by: str
    arrangement: str
    dtype: str
    bound: float
    relative_l2: float
    max_abs: float
    ulp: float
    worst: tuple[int, ...]
    worst_values: tuple[float, float]
    agrees: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Trap:
    """A convention on which the two recordings differ.

    `field` is that of `shared.spec.Conventions`, None where it has none; `anchor` the row of
    docs/porting.md. `certain` is False where another trap of the report explains the same numbers.
    """

    field: str | None
    anchor: str | None
    first: str
    second: str
    where: tuple[str, ...]
    certain: bool = True


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
        return _plain(dataclasses.asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


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
        f"  {p.second!r} was taken for {p.first!r} by {p.matched_by}"
        for p in report.pairs
        if p.matched_by != "name"
    ]
    arranged: dict[str, list[str]] = {}
    for p in report.pairs:
        for text in (p.arrangement, *p.notes):
            arranged.setdefault(text, []).append(p.first)
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
    first, *others = (pair for pair in report.pairs[report.parting :] if not pair.agrees)
    lines = ["The first difference:", f"  step {first.step}  {first.first}"]
    if math.isnan(first.max_abs):
        lines[-1] += ": cannot be compared"
    else:
        one, two = first.worst_values
        lines += [
            f"  relative L2 {first.relative_l2:.2g}, bound {first.bound:.0e} ({first.dtype})",
            f"  worst element {first.worst}: {one!r} and {two!r}, "
            f"{first.max_abs:.2g} or {first.ulp:.3g} ULP apart",
        ]
    if others:
        lines.append(f"then {len(others)} more:")
    for pair in others[:_SHOWN_PAIRS]:
        lines.append(f"  step {pair.step}  {pair.first}  {pair.relative_l2:.2g}")
    if len(others) > _SHOWN_PAIRS:
        lines.append("  …")
    return [*lines, "", *_trap_lines(report.traps)]


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
