"""What a training run is asked to do: the options of the command, checked, and their defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from shared.spec import GeneratorBatch, SystemSpec
from shared.spec.replicas import BatchNormKind, check_replicas
from shared.spec.streams import MAXIMUM_SEED

GENERATOR_BATCHES = {name.replace("_", "-"): name for name in get_args(GeneratorBatch)}
WAIT_LIMIT = 300.0  # seconds: more than any first step of a compiler takes here

ALL_CHECKPOINTS = 0
"""As a number of checkpoints to keep."""
KEEP_CHECKPOINTS = 3  # one to go on from, and two should that one be damaged or too late


@dataclass(frozen=True)
class QuickRun:
    """What a command without --full trains: enough for digits that can be read."""

    width: int
    batch_size: int
    steps: int
    sample_every: int
    checkpoint_every: int


QUICK_RUNS = {
    "dcgan64": QuickRun(16, 32, steps=600, sample_every=100, checkpoint_every=500),
    "conv28": QuickRun(32, 64, steps=600, sample_every=100, checkpoint_every=500),
    "mlp28": QuickRun(128, 64, steps=10_000, sample_every=500, checkpoint_every=4000),
}
"""By architecture."""


@dataclass(frozen=True)
class TrainingOptions:
    """What to train and how; `spec` is final, in its loss, width, batch size and order of a step.

    `data` is a path, or None for scikit-learn's digits. `out` is the folder of the run;
    `checkpoint_every` and `sample_every` count steps; `tensorboard` adds an event file to the
    folder. `devices`, `batch_norm`: see `shared.spec.replicas`; `wait_limit` is in seconds.
    `keep_checkpoints` is how many of the newest stay, ALL_CHECKPOINTS for all; `config` is what
    the folder's config.toml holds, empty for no such file. Raises ValueError for a number out of
    range.
    """

    implementation: str
    spec: SystemSpec
    data: Path | None
    steps: int
    seed: int
    out: Path
    resume: bool
    device: Literal["auto", "cpu", "gpu"]
    dtype: Literal["float32", "float64"]
    checkpoint_every: int
    sample_every: int
    tensorboard: bool
    devices: int = 1
    batch_norm: BatchNormKind = "global"
    wait_limit: float = WAIT_LIMIT
    keep_checkpoints: int = KEEP_CHECKPOINTS
    config: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_replicas(self.spec, self.devices, self.batch_norm)
        if not 0 < self.wait_limit < math.inf:
            raise ValueError(f"--wait-limit must be positive seconds, received {self.wait_limit}")
        for name in ("steps", "checkpoint_every", "sample_every"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be at least 1, received {getattr(self, name)}")
        if self.keep_checkpoints < 0:
            raise ValueError(
                "--keep-checkpoints must be at least 1, or all (or 0) to keep every one, "
                f"received {self.keep_checkpoints}"
            )
        if self.spec.batch_size < 2:
            raise ValueError(
                "--batch-size must be at least 2, because batch normalisation needs a variance; "
                f"received {self.spec.batch_size}"
            )
        if not 0 <= self.seed <= MAXIMUM_SEED:
            raise ValueError(f"--seed must be between 0 and {MAXIMUM_SEED}, received {self.seed}")
