"""Two recordings of anybody's training loops: which tensors match, where they diverge, why.

    report = explain_recordings(Path("theirs.safetensors"), Path("ours.safetensors"))
    print(format_report(report))

In this order: tensors are matched by name, then by value; the second's axes are arranged as the
first's; every pair is compared in recorded order; the traps that the recorded names allow to
check are tried on both sides. A trap is named only where each side by itself is explained by a
convention and the two conventions differ. docs/recordings.md lists what to record.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shared.explain.recordings.evidence import Evidence, merged
from shared.explain.recordings.matching import align_all, match, with_settled_dtypes
from shared.explain.recordings.operation_traps import adam_traps, layer_traps
from shared.explain.recordings.report import RecordingReport, format_report
from shared.explain.recordings.tensor_traps import factor_traps, layout_traps
from shared.files.recording import read_recording

__all__ = ["RecordingReport", "explain_recordings", "format_report"]

_FINDERS = (layout_traps, factor_traps, layer_traps, adam_traps)


@np.errstate(all="ignore")  # a run that has diverged holds infinities and nan
def explain_recordings(first: Path, second: Path, *, bound: float | None = None) -> RecordingReport:
    """Compare two recordings of `shared.record`; `bound` replaces that of the dtypes.

    Raises RecordingError, one line, for a file that is no recording.
    """
    recordings = read_recording(first), read_recording(second)
    ours, theirs = map(with_settled_dtypes, recordings)
    matched, unmatched = match(ours, theirs, bound)
    evidence = Evidence(align_all(matched))
    pairs = tuple(evidence.pairs.values())
    return RecordingReport(
        paths=(str(first), str(second)),
        frameworks=(recordings[0].framework, recordings[1].framework),
        pairs=pairs,
        parting=next((i for i, pair in enumerate(pairs) if not pair.agrees), None),
        traps=merged(trap for find in _FINDERS for trap in find(evidence)),
        unmatched=unmatched,
    )
