"""The settings of runs, flat and as text: which of them differ, and what to know first."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.files.checkpoint import flattened
from shared.report.runs import Run
from shared.spec import NETWORKS

SPEC, OPTIONS, ENVIRONMENT, VERSIONS = "system", "options", "environment", "versions"
LOSS, DATASET = (SPEC, "loss"), (ENVIRONMENT, "dataset")
ABSENT = "—"


@dataclass(frozen=True)
class Setting:
    """One setting and its value in each run, in the order of the runs."""

    group: str
    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether two runs differ in it. A package that a run did without is no difference."""
        return len(set(self.values) - ({ABSENT} if self.group == VERSIONS else set())) > 1

    @property
    def is_chosen(self) -> bool:
        """Whether it says what was run, not where it ran or into which folder it was written."""
        chosen = self.group in (SPEC, OPTIONS) and self.name not in ("out", "resume")
        return chosen or (self.group, self.name) == DATASET


def compare_settings(runs: Sequence[Run]) -> list[Setting]:
    """Return every setting that any of the runs recorded, group by group."""
    all_settings = [effective_settings(run) for run in runs]
    # A dict keeps the order in which the keys came; the groups are brought together after that.
    keys = list(dict.fromkeys(key for settings in all_settings for key in settings))
    keys.sort(key=lambda key: (SPEC, OPTIONS, ENVIRONMENT, VERSIONS).index(key[0]))
    return [Setting(*key, tuple(s.get(key, ABSENT) for s in all_settings)) for key in keys]


def effective_settings(run: Run) -> dict[tuple[str, str], str]:
    """Return (group, name) → value; one that changed between sessions as "before → after"."""
    groups = [(SPEC, run.spec)]
    for session in run.sessions:
        rest = {k: v for k, v in session.items() if k not in ("start", "options", "versions")}
        groups += [(OPTIONS, session["options"]), (ENVIRONMENT, rest)]
        groups += [(VERSIONS, session["versions"])]
    texts: dict[tuple[str, str], list[str]] = {}
    for group, content in groups:
        for name, value in flattened(content).items():
            history, text = texts.setdefault((group, name), []), _shown(value)
            history += [text] if history[-1:] != [text] else []
    return {key: " → ".join(history) for key, history in texts.items()}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def headline(run: Run) -> dict[str, str]:
    """Return what a reader wants to know first of a run; what was not recorded is a dash."""
    settings = effective_settings(run)

    def of(group: str, name: str) -> str:
        return settings.get((group, name), ABSENT)

    rates = [f"{name} {of(SPEC, f'{name}_optimizer.learning_rate')}" for name in NETWORKS]
    versions = [f"{name} {text}" for (group, name), text in settings.items() if group == VERSIONS]
    asked = "" if run.asked_steps is None else f" of {run.asked_steps:,}"
    return {
        "system": f"{of(SPEC, 'name')}, width {of(SPEC, 'width')}",
        "loss": of(*LOSS),
        "framework": of(OPTIONS, "implementation"),
        "versions": ", ".join(versions) or ABSENT,
        "data": of(*DATASET),
        "seed": of(OPTIONS, "seed"),
        "steps": f"{run.completed_steps:,}{asked}",
        "batch size": of(SPEC, "batch_size"),
        "learning rates": ", ".join(rates),
        "dtype": of(OPTIONS, "dtype"),
        "device": of(ENVIRONMENT, "device"),
        "environment": f"Python {of(ENVIRONMENT, 'python')}, {of(ENVIRONMENT, 'platform')}",
        "duration": duration(run.seconds),
    }


def duration(seconds: float | None) -> str:
    """Return a time in words: "16.7 s", "19 min 40 s", "2 h 3 min"; else a dash."""
    if seconds is None or not math.isfinite(seconds):
        return ABSENT
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    if round(seconds) < 3600:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    return "{} h {} min".format(*divmod(round(seconds / 60), 60))
