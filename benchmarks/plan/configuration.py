"""What is timed against what: one configuration is one line of the tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# As on the command line → as everywhere else.
PRECISIONS = {"fp32": "float32", "tf32": "tf32", "bf16": "bfloat16"}
# How a framework runs a step. Written here too because the parent imports no framework; a test
# holds them against the MODES of the implementations.
MODES = {
    "pytorch": ("eager", "compile", "cudagraph"),
    "tf": ("function", "xla"),
    "jax": ("jit",),
}
INPUTS = ("device", "host", "loader")


@dataclass(frozen=True)
class Configuration:
    """One way to run the workload.

    `implementation` is "ours" or "baseline". `mode` None leaves it to the implementation. `input`
    says where a step finds its batch: on the device, in the host's memory, or in a loader.
    `batch_size` and `threads` are those of all `devices` together.
    `again` marks the second of two equal configurations, which measure the noise.
    """

    framework: str
    implementation: str
    precision: str
    mode: str | None
    batch_size: int
    threads: int
    input: str
    again: bool = False
    devices: int = 1

    @property
    def threads_of_process(self) -> int:
        """The threads of each process where every device has one: its part, at least one."""
        return max(1, self.threads // self.devices)

    @property
    def id(self) -> str:
        """A name that is unique in a run and the same in every run."""
        parts = [
            self.framework,
            self.implementation,
            self.precision,
            self.mode or "auto",
            f"batch{self.batch_size}",
            f"threads{self.threads}",
            f"input-{self.input}",
        ]
        if self.devices > 1:  # said only then: documents of before still name the same things
            parts.append(f"devices{self.devices}")
        return "/".join([*parts, "again"] if self.again else parts)

    def is_repeated_by(self, other: Configuration) -> bool:
        """Return whether `other` is this configuration a second time."""
        return not self.again and other == dataclasses.replace(self, again=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON data."""
        return dataclasses.asdict(self)


def labels(configurations: Sequence[Configuration]) -> list[str]:
    """Return a short name for each: the framework, and what tells it from the others."""
    varying = {
        field.name
        for field in dataclasses.fields(Configuration)
        if len({getattr(c, field.name) for c in configurations}) > 1
    }
    return [_label(configuration, varying) for configuration in configurations]


def _label(configuration: Configuration, varying: set[str]) -> str:
    parts = [configuration.framework]
    if configuration.implementation != "ours":
        parts.append(configuration.implementation)
    if "precision" in varying:
        parts.append(next(k for k, v in PRECISIONS.items() if v == configuration.precision))
    if configuration.mode is not None:
        parts.append(configuration.mode)
    if "batch_size" in varying:
        parts.append(f"batch {configuration.batch_size}")
    if "threads" in varying:
        parts.append(f"threads {configuration.threads}")
    if "devices" in varying and configuration.devices > 1:
        parts.append(f"{configuration.devices} devices")
    if configuration.input != "device":
        parts.append(f"from {configuration.input}")
    return " ".join([*parts, "again"] if configuration.again else parts)
