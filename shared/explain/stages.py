"""The stages of a step that are compared: what shows each, and what can be wrong in it."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.spec import NetworkName

INITIAL_STAGE = "initial weights"


@dataclass(frozen=True)
class StageKind:
    """One stage: stages.toml says what its fields are."""

    methods: Sequence[str]
    parts: Sequence[str]
    track: str = "step"
    alone: bool = False
    needs: Sequence[str] = ()
    follows: Sequence[str] = ()
    float32: float = 1.0


def network_of(name: str) -> NetworkName:
    """Return the network of a stage or an array; the discriminator where its name has none."""
    return "generator" if "generator" in name else "discriminator"


def _kinds() -> dict[str, StageKind]:
    text = Path(__file__).with_name("stages.toml").read_text("utf-8")
    of_networks = [
        tomllib.loads(text.replace("{network}", network).replace("{run}", method)).items()
        for network, method in (("discriminator", "discriminate"), ("generator", "generate"))
    ]
    pairs = zip(*of_networks, strict=True)
    return {name: StageKind(**fields) for pair in pairs for name, fields in pair}


KINDS = _kinds()
"""Every stage but that of the initial weights, in order."""
TRACKS = tuple(dict.fromkeys(kind.track for kind in KINDS.values()))
"""Stages explained together: a port's step need not do what its `generate` or `loss` does."""
STEP_STAGES = tuple(name for name, kind in KINDS.items() if kind.track == "step")
STAGES = (INITIAL_STAGE, *KINDS)
