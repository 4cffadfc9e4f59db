"""Two recordings of anybody's training loops: which tensors match, where they diverge, why.

    report = explain_recordings(Path("theirs.safetensors"), Path("ours.safetensors"))
    print(format_report(report))

In this order: tensors are matched by name, then by value; the second's axes are arranged as the
first's; every pair is compared in recorded order; the traps that the recorded names allow to
check are tried on both sides. A trap is named only where each side by itself is explained by a
convention and the two conventions differ. docs/recordings.md lists what to record.
"""

import itertools
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
from shared.explain.recordings.matching import Pair
from shared.explain.recordings.tensor_traps import factor_traps, layout_traps, pass_traps
from shared.explain.report import VerdictName, render
from shared.files.recording import read_recording


@dataclass(frozen=True)
class RecordingReport:
    """What two recordings have in common and where they diverge.

    `first_difference` is the index in `pairs` of the first that differs, None where all agree.
    `findings`: in what their systems differ, and what only one of them holds or could be several of
    the other.
    """

    paths: tuple[str, str]
    frameworks: tuple[str, str]
    pairs: tuple[Pair, ...]
    first_difference: int | None
    traps: tuple[Trap, ...]
    findings: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """True where no pair differs."""
        return self.first_difference is None

    @property
    def named(self) -> list[Trap]:
        """The traps that are the only reading of their numbers."""
        return [trap for trap in self.traps if trap.certain and not self.agrees]

    @property
    def differing(self) -> list[Pair]:
        """The pairs that differ, in their order."""
        return [pair for pair in self.pairs if not pair.agrees]

    @property
    def located(self) -> list[Pair]:
        """The pairs that differ before anything that is named."""
        return list(itertools.takewhile(lambda pair: not self._is_named(pair), self.differing))

    @property
    def following(self) -> list[Pair]:
        """The pairs that differ after something that is named, and may do so because of it."""
        unnamed = [pair for pair in self.differing if not self._is_named(pair)]
        return unnamed[len(self.located) :]

    def _is_named(self, pair: Pair) -> bool:
        return any(trap.explains(pair.one.name) for trap in self.named)

    @property
    def verdict(self) -> VerdictName:
        """Whether they agree, and whether what differs first has a name."""
        if self.agrees:
            return "rounding"
        some: VerdictName = "partly named" if self.named else "unexplained"
        return some if self.located else "named"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON data; nan and infinities become text."""
        own = {name: value for name, value in vars(self).items() if name != "traps"}
        parts = {
            "verdict": self.verdict,
            "named": [trap.to_dict() for trap in self.named],
            "located": [
                {"stage": f"step {p.one.step}", "array": p.one.name, "note": self.note(p)}
                for p in self.located[:1]
            ],
            "pairs": [pair.to_dict() for pair in self.pairs],
        }
        return json_data(own | parts)

    def note(self, pair: Pair) -> str:
        """Return the readings of a pair that is located, or what would have to be recorded."""
        name = pair.one.name
        readings = [t.title for t in self.traps if not t.certain and t.explains(name)]
        if readings:
            return f"one of: {'; '.join(readings)}"
        wanted = _wanted(name, {p.one.name for p in self.pairs})
        more = f"; record more to decide it: {', '.join(wanted)}" if wanted else ""
        return f"no trap that could be checked explains it{more}"


@np.errstate(all="ignore")  # a run that has diverged holds infinities and nan
def explain_recordings(first: Path, second: Path, *, bound: float | None = None) -> RecordingReport:
    """Compare two recordings of `shared.record`; `bound` replaces that of the dtypes.

    Raises InputError, one line, for a file that is no recording.
    """
    recordings = read_recording(first), read_recording(second)
    ours, theirs = (matching.with_settled_dtypes(r.tensors) for r in recordings)
    matched, alone = matching.match(ours, theirs, bound)
    evidence = Evidence(matching.align_all(matched), alone)
    pairs = tuple(evidence.pairs.values())
    one, two = (r.system.to_dict() if r.system else {} for r in recordings)
    fields = [n for n, value in one.items() if value != two.get(n, value)]
    finders = layout_traps, pass_traps, factor_traps, loss_traps, layer_traps, adam_traps
    return RecordingReport(
        paths=(str(first), str(second)),
        frameworks=(recordings[0].framework, recordings[1].framework),
        pairs=pairs,
        first_difference=next((i for i, pair in enumerate(pairs) if not pair.agrees), None),
        traps=merged(trap for find in finders for trap in find(evidence)),
        findings=(
            *([f"their systems differ in {', '.join(fields)}"] if fields else []),
            *matching.unmatched_text("first", alone[0]),
            *matching.unmatched_text("second", alone[1]),
        ),
    )


def format_report(report: RecordingReport) -> str:
    """Return the report as text for a terminal."""
    others = [p for p in report.pairs if p.matched_by != "name"]
    renamed = (f"{p.two.name!r} was taken for {p.one.name!r} by {p.matched_by}" for p in others)
    arranged: dict[str, list[str]] = {}
    for p in report.pairs:
        for text in (p.arrangement, *p.notes):
            arranged.setdefault(text, []).append(p.one.name)
    return render("recordings.j2", r=report, renamed=dict.fromkeys(renamed), arranged=arranged)


def _wanted(name: str, recorded: set[str]) -> list[str]:
    """Return the names that are not recorded and would decide what a tensor's difference is."""
    layer, _, last = name.rpartition("/")
    if last in ("m", "v", *matching.KERNELS, "bias", "scale"):
        own = matching.parameter_of(name)
        wanted = [own, *(own + companion for companion in matching.COMPANIONS)]
    elif last == "output":
        of_layer = ("scale", "bias", "mean", "var") if f"{layer}/scale" in recorded else ("kernel",)
        wanted = [f"{layer}/{tensor}" for tensor in ("input", *of_layer)]
    elif last in ("mean", "var"):
        wanted = [f"{layer}/{tensor}" for tensor in ("input", "mean", "var")]
    else:
        wanted = ["scores", "loss"] if "gradient" in last or "loss" in last else []
    return [n for n in wanted if n not in recorded]
