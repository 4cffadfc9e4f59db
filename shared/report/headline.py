"""What a reader wants to know first about a run, as short texts."""

from __future__ import annotations

import math

from shared.report.runs import Run
from shared.report.settings import (
    ABSENT,
    ENVIRONMENT,
    OPTIONS,
    SPEC,
    VERSIONS,
    effective_settings,
)
from shared.spec import NETWORKS

SECONDS_OF_A_MINUTE, SECONDS_OF_AN_HOUR = 60, 3600


def headline(run: Run) -> dict[str, str]:
    """Return the same facts for every run, in words; what was not recorded is a dash."""
    settings = effective_settings(run)

    def of(group: str, name: str) -> str:
        return settings.get((group, name), ABSENT)

    rates = [of(SPEC, f"{name}_optimizer.learning_rate") for name in NETWORKS]
    versions = [f"{name} {text}" for (group, name), text in settings.items() if group == VERSIONS]
    return {
        "system": f"{of(SPEC, 'name')}, width {of(SPEC, 'width')}",
        "loss": of(SPEC, "loss"),
        "framework": of(OPTIONS, "implementation"),
        "versions": ", ".join(versions) or ABSENT,
        "data": of(ENVIRONMENT, "dataset"),
        "seed": of(OPTIONS, "seed"),
        "steps": _steps(run),
        "batch size": of(SPEC, "batch_size"),
        "learning rates": f"generator {rates[0]}, discriminator {rates[1]}",
        "dtype": of(OPTIONS, "dtype"),
        "device": of(ENVIRONMENT, "device"),
        "environment": f"Python {of(ENVIRONMENT, 'python')}, {of(ENVIRONMENT, 'platform')}",
        "duration": duration(run.seconds),
    }


def duration(seconds: float | None) -> str:
    """Return a time as a reader says it: "16.7 s", "19 min 40 s", "2 h 3 min"; else a dash."""
    if seconds is None or not math.isfinite(seconds):
        return ABSENT
    if round(seconds, 1) < SECONDS_OF_A_MINUTE:
        return f"{seconds:.1f} s"
    if round(seconds) < SECONDS_OF_AN_HOUR:
        minutes, rest = divmod(round(seconds), SECONDS_OF_A_MINUTE)
        return f"{minutes} min {rest} s"
    hours, rest = divmod(round(seconds / SECONDS_OF_A_MINUTE), SECONDS_OF_A_MINUTE)
    return f"{hours} h {rest} min"


def _steps(run: Run) -> str:
    if run.asked_steps is None:
        return f"{run.completed_steps:,}"
    return f"{run.completed_steps:,} of {run.asked_steps:,}"
