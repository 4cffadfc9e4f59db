"""The settings of runs, flat and as text, and which of them differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.report.runs import Run

SPEC, OPTIONS, ENVIRONMENT, VERSIONS = "system", "options", "environment", "versions"
DATASET = "dataset"
ABSENT = "—"
_EXPECTED_TO_DIFFER = {"out", "resume"}


@dataclass(frozen=True)
class Setting:
    """One setting and its value in each run, in the order of the runs."""

    group: str
    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether two runs differ in it. A package that a run did without is no difference."""
        values = set(self.values)
        if self.group == VERSIONS:
            values.discard(ABSENT)
        return len(values) > 1


def compare_settings(runs: Sequence[Run]) -> list[Setting]:
    """Return every setting that any of the runs recorded, group by group."""
    all_settings = [effective_settings(run) for run in runs]
    # A dict keeps the order in which the keys came; the groups are brought together after that.
    keys = list(dict.fromkeys(key for settings in all_settings for key in settings))
    keys.sort(key=lambda key: (SPEC, OPTIONS, ENVIRONMENT, VERSIONS).index(key[0]))
    return [Setting(*key, tuple(s.get(key, ABSENT) for s in all_settings)) for key in keys]


def effective_settings(run: Run) -> dict[tuple[str, str], str]:
    """Return (group, name) → value; one that changed between sessions as "before → after"."""
    found = {(SPEC, name): [text] for name, text in _flat(run.spec).items()}
    for session in run.sessions:
        for key, text in _session_settings(session).items():
            texts = found.setdefault(key, [])
            if not texts or texts[-1] != text:
                texts.append(text)
    return {key: " → ".join(texts) for key, texts in found.items()}


def differences_in_words(settings: Sequence[Setting]) -> str:
    """Return one sentence on what was set differently, as a reader of a comparison asks for it.

    Where they ran is left out, as are the folders they were written to.
    """
    found = [
        f"{setting.name} ({', '.join(dict.fromkeys(setting.values))})"
        for setting in settings
        if setting.differs
        and (setting.group in (SPEC, OPTIONS) or setting.name == DATASET)
        and setting.name not in _EXPECTED_TO_DIFFER
    ]
    if not found:
        return "System, options and data are the same in all runs."
    same = "All else of system, options and data is the same."
    return f"The runs differ in {', '.join(found)}. {same}"


def _session_settings(session: dict[str, Any]) -> dict[tuple[str, str], str]:
    rest = {name: value for name, value in session.items() if name not in ("start", "options")}
    versions = rest.pop("versions")
    groups = ((OPTIONS, session["options"]), (ENVIRONMENT, rest), (VERSIONS, versions))
    return {
        (group, name): text for group, content in groups for name, text in _flat(content).items()
    }


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            flat[f"{prefix}{name}"] = shown
    return flat
