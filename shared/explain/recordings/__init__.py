"""Two recordings of anybody's training loops: which tensors match, where they diverge, and why.

    report = explain_recordings(Path("theirs.safetensors"), Path("ours.safetensors"))
    print(format_report(report))

In this order: tensors are matched by name, then by value; the second's axes are arranged as the
first's; every pair is compared in recorded order; the traps that the recorded names allow to
check are tried on both sides. A trap is named only where each side by itself is explained by a
convention and the two conventions differ. docs/recordings.md says what to record.
"""

from shared.explain.recordings.explanation import explain_recordings
from shared.explain.recordings.report import RecordingReport, format_report

__all__ = ["RecordingReport", "explain_recordings", "format_report"]
