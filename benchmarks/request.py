"""What a worker is asked to do: plain data that crosses a process border as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

from shared.spec import SYSTEMS, SystemSpec

DeviceName = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Request:
    """One worker's task. `steps` is per window (None: about a second's worth); budget in seconds.

    `budget` ends the measuring of a worker that started `budget` seconds ago; the little that
    every row needs (two windows, a few single steps) is measured even after that.
    """

    framework: str
    round: int
    system: str
    loss: str
    width: int
    batch_size: int
    device: DeviceName
    threads: int
    seed: int
    steps: int | None
    budget: float
    dtype: str = "float32"

    @property
    def spec(self) -> SystemSpec:
        """The system to train, with its loss, width and batch size."""
        changes = {"loss": self.loss, "width": self.width, "batch_size": self.batch_size}
        return SYSTEMS[self.system].replace(**changes)

    def to_json(self) -> str:
        """Return the request as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Rebuild a request from `to_json`."""
        return cls(**json.loads(text))
