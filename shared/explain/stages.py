"""The stages of a step that are compared: what shows each, and what can be wrong in it."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from shared.spec import NETWORKS, NetworkName

INITIAL_STAGE = "initial weights"
_RUN = {"generator": "generate", "discriminator": "discriminate"}


@dataclass(frozen=True)
class StageKind:
    """One stage: stages.toml says what its fields are."""

    methods: tuple[str, ...]
    parts: tuple[str, ...]
    track: str = "step"
    alone: bool = False
    needs: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    float32: float = 1.0


def network_of(name: str) -> NetworkName:
    """Return the network of a stage or an array; the discriminator where its name has none."""
    return "generator" if "generator" in name else "discriminator"


def _filled(value: object, network: NetworkName) -> object:
    if isinstance(value, list):
        return tuple(x.format(network=network, run=_RUN[network]) for x in value)
    return value


def _kinds() -> dict[str, StageKind]:
    table = tomllib.loads(Path(__file__).with_name("stages.toml").read_text("utf-8"))
    found = {}
    for name, entry in table.items():
        for network in reversed(NETWORKS):
            kind = {key: _filled(value, network) for key, value in entry.items()}
            found[name.format(network=network)] = StageKind(**kind)  # type: ignore[arg-type]
    return found


KINDS = _kinds()
"""Every stage but that of the initial weights, in order."""
TRACKS = tuple(dict.fromkeys(kind.track for kind in KINDS.values()))
"""Stages explained together: a port's step need not do what its `generate` or `loss` does."""
STEP_STAGES = tuple(name for name, kind in KINDS.items() if kind.track == "step")
STAGES = (INITIAL_STAGE, *KINDS)
