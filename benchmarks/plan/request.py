"""What a worker is asked to do: plain data that crosses a process border as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

from benchmarks.plan.configuration import Configuration
from shared.spec import SYSTEMS, SystemSpec

DeviceName = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Request:
    """One worker's task. `steps` is per window (None: about a second's worth); budget in seconds.

    `budget` ends the measuring of a worker that started `budget` seconds ago; the little that
    every row needs (two windows, a few single steps) is measured even after that. `data` is a
    folder or file of images for the loader, None for the digits that scikit-learn brings.
    """

    configuration: Configuration
    round: int
    system: str
    loss: str
    width: int
    device: DeviceName
    seed: int
    steps: int | None
    budget: float
    data: str | None = None
    dtype: str = "float32"

    @property
    def framework(self) -> str:
        """The framework of the configuration."""
        return self.configuration.framework

    @property
    def spec(self) -> SystemSpec:
        """The system to train, with its loss, width and batch size."""
        batch_size = self.configuration.batch_size
        return SYSTEMS[self.system].replace(loss=self.loss, width=self.width, batch_size=batch_size)

    def to_json(self) -> str:
        """Return the request as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Rebuild a request from `to_json`."""
        data = json.loads(text)
        return cls(**data | {"configuration": Configuration(**data["configuration"])})
