"""What is found out about two recordings, as data and as text for a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared.explain.distance import json_data
from shared.explain.recordings.evidence import Trap
from shared.explain.recordings.pairs import Pair
from shared.explain.report import render


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

    @property
    def agrees(self) -> bool:
        """True where no pair differs."""
        return self.parting is None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON data; nan and infinities become text."""
        return json_data(vars(self) | {"pairs": [pair.to_dict() for pair in self.pairs]})


def format_report(report: RecordingReport) -> str:
    """Return the report as text for a terminal."""
    renamed = {
        f"{p.two.name!r} was taken for {p.one.name!r} by {p.matched_by}": None
        for p in report.pairs
        if p.matched_by != "name"
    }
    arranged: dict[str, list[str]] = {}
    for p in report.pairs:
        for text in (p.arrangement, *p.notes):
            arranged.setdefault(text, []).append(p.one.name)
    differing = [p for p in report.pairs if not p.agrees]
    return render(
        "recordings.j2", r=report, renamed=renamed, arranged=arranged, differing=differing
    )
