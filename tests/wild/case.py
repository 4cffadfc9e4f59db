"""What a wild case is: a public report, its mistake made again, and the verdict that is right."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from shared.explain import explain
from shared.explain.recordings import explain_recordings
from shared.spec import SYSTEMS, SystemSpec

Outcome = Literal["named", "located", "missed", "misnamed"]


def _is_same(found: Any, wanted: Any) -> bool:
    if isinstance(found, float) and isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=1e-9)
    return found == wanted


@dataclass(frozen=True)
class AdapterCase:
    """A port with the mistake of a report; `fields` are the conventions that it has otherwise.

    `port` is made without arguments, or is a function of the narrow system.

    Without any fields it is right; if `is_known` is False, it has a mistake without a name besides,
    and all of the fields have to be named beside what is located.
    """

    report: str
    mistake: str
    port: Callable[..., Any]
    fields: dict[str, Any] = field(default_factory=dict)
    system: str | SystemSpec = "conv28"
    is_known: bool = True
    dtype: str = "float64"

    def outcome(self, folder: Path) -> tuple[Outcome, str]:
        """Explain the port; return what became of it, and what was said."""
        given = SYSTEMS[self.system] if isinstance(self.system, str) else self.system
        spec = given.replace(width=2, latent_dim=6, batch_size=4)
        port = self.port() if isinstance(self.port, type) else self.port(spec)
        found = explain(port, spec, steps=2, dtype=self.dtype)
        said = "; ".join([*found.named, *(f"in {p.stage}" for p in found.located), *found.findings])
        if not all(_is_same(value, self.fields.get(f)) for f, value in found.fields.items()):
            return "misnamed", said
        if self.is_known and found.fields.keys() == self.fields.keys() and not found.located:
            is_right = self.fields or found.verdict == "rounding"
            return "named" if is_right else "missed", said
        is_located = not found.agrees and found.fields.keys() == self.fields.keys()
        return ("located" if is_located or (self.is_known and not found.agrees) else "missed"), said


@dataclass(frozen=True)
class RecordingCase:
    """Two recordings, of which `write` makes the files; `traps` are (field, first, second).

    A pair without traps that has to agree is right; with `is_known` False it has to differ.
    """

    report: str
    mistake: str
    write: Callable[[Path, Path], None]
    traps: frozenset[tuple[str | None, str, str]] = frozenset()
    is_known: bool = True

    def outcome(self, folder: Path) -> tuple[Outcome, str]:
        """Explain the pair; return what became of it, and what was said."""
        paths = folder / "theirs.safetensors", folder / "ours.safetensors"
        self.write(*paths)
        report = explain_recordings(*paths)
        found = {(trap.field, trap.first, trap.second) for trap in report.traps}
        said = "; ".join(
            f"{trap.field or ''} {trap.first} / {trap.second}" for trap in report.traps
        )
        if not found <= self.traps:
            return "misnamed", said
        if self.is_known and found == self.traps and (self.traps or report.agrees):
            return "named", said
        return ("missed" if report.agrees else "located"), said
