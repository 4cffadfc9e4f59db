"""Two recordings of anybody's training loops: which tensors match, where they diverge, why.

    report = explain_recordings(Path("theirs.safetensors"), Path("ours.safetensors"))
    print(format_report(report))

In this order: tensors are matched by name, then by value; the second's axes are arranged as the
first's; every pair is compared in recorded order; the traps that the recorded names allow to
check are tried on both sides. A trap is named only where each side by itself is explained by a
convention and the two conventions differ. docs/recordings.md lists what to record.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.explain.distance import json_data
from shared.explain.recordings import matching
from shared.explain.recordings.adam_traps import adam_traps
from shared.explain.recordings.evidence import Evidence, Trap, merged
from shared.explain.recordings.layer_traps import layer_traps
from shared.explain.recordings.loss_traps import loss_traps
from shared.explain.recordings.pairs import Pair
from shared.explain.recordings.tensor_traps import factor_traps, layout_traps, pass_traps
from shared.explain.report import render
from shared.files.recording import read_recording


@dataclass(frozen=True)
class RecordingReport:
    """What two recordings have in common and where they diverge.

    `parting` is the index in `pairs` of the first that differs, None where all agree. `unmatched`
    names what only one of them holds or what could not be matched without guessing; before it, in
    what their systems differ.
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


@np.errstate(all="ignore")  # a run that has diverged holds infinities and nan
def explain_recordings(first: Path, second: Path, *, bound: float | None = None) -> RecordingReport:
    """Compare two recordings of `shared.record`; `bound` replaces that of the dtypes.

    Raises RecordingError, one line, for a file that is no recording.
    """
    recordings = read_recording(first), read_recording(second)
    ours, theirs = map(matching.with_settled_dtypes, recordings)
    matched, single = matching.match(ours, theirs, bound)
    alone = [[tensor for tensor, _ in side] for side in single]
    evidence = Evidence(matching.align_all(matched), alone)
    pairs = tuple(evidence.pairs.values())
    one, two = (r.system.to_dict() if r.system else {} for r in recordings)
    fields = [n for n, value in one.items() if value != two.get(n, value)]
    finders = layout_traps, pass_traps, factor_traps, loss_traps, layer_traps, adam_traps
    return RecordingReport(
        paths=(str(first), str(second)),
        frameworks=(recordings[0].framework, recordings[1].framework),
        pairs=pairs,
        parting=next((i for i, pair in enumerate(pairs) if not pair.agrees), None),
        traps=merged(trap for find in finders for trap in find(evidence)),
        unmatched=(
            *([f"their systems differ in {', '.join(fields)}"] if fields else []),
            *matching.unmatched_texts("first", single[0]),
            *matching.unmatched_texts("second", single[1]),
        ),
    )


def format_report(report: RecordingReport) -> str:
    """Return the report as text for a terminal."""
    renamed = dict.fromkeys(
        f"{p.two.name!r} was taken for {p.one.name!r} by {p.matched_by}"
        for p in report.pairs
        if p.matched_by != "name"
    )
    arranged: dict[str, list[str]] = {}
    for p in report.pairs:
        for text in (p.arrangement, *p.notes):
            arranged.setdefault(text, []).append(p.one.name)
    differing = [p for p in report.pairs if not p.agrees]
    first = differing[0].one.name if differing else ""
    return render(
        "recordings.j2",
        r=report,
        renamed=renamed,
        arranged=arranged,
        differing=differing,
        explaining=[trap for trap in report.traps if trap.explains(first)],
        wanted=_wanted(first, {p.one.name for p in report.pairs}),
    )


def _wanted(name: str, recorded: set[str]) -> list[str]:
    """Return the names that are not recorded and would decide what a tensor's difference is."""
    layer, _, last = name.rpartition("/")
    if last in ("m", "v"):
        wanted = [layer, *(layer + companion for companion in matching.COMPANIONS)]
    elif last in (*matching.KERNELS, "bias", "scale"):
        wanted = [name + companion for companion in matching.COMPANIONS]
    elif last == "output":
        own = ("scale", "bias", "mean", "var") if f"{layer}/scale" in recorded else ("kernel",)
        wanted = [f"{layer}/{tensor}" for tensor in ("input", *own)]
    elif last in ("mean", "var"):
        wanted = [f"{layer}/{tensor}" for tensor in ("input", "mean", "var")]
    else:
        wanted = ["scores", "loss"] if "gradient" in last or "loss" in last else []
    return [n for n in wanted if n not in recorded]
