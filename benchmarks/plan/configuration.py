"""What is measured: the plan of a run, its configurations, and the request to one worker."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

from shared.spec import SYSTEMS, SystemSpec
from shared.spec.compute import PRECISIONS
from shared.spec.streams import stream

DeviceName = Literal["cpu", "gpu"]

# How a framework runs a step. Written here too because the parent imports no framework; a test
# holds them against the MODES of the implementations.
MODES = {"pytorch": ("eager", "compile", "cudagraph"), "tf": ("function", "xla"), "jax": ("jit",)}
INPUTS = ("device", "host", "loader")
DTYPE = "float32"
CHOSEN = ("loss", "width", "image_size", "channels")  # of a system, where an option says so
# Of the step that is compared with the NumPy reference. It is shared among the devices too.
GATE_BATCH_SIZE = 8


@dataclass(frozen=True)
class Configuration:
    """One line of the tables: one way to run the workload.

    `implementation` is "ours" or "baseline". `mode` None leaves it to the implementation. `input`
    is where a step finds its batch, one of INPUTS. `batch_size` and `threads` are those of all
    `devices` together. `again` marks the second of two equal ones, which measure the noise.
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
        """The threads of each process where every device has one: its share, at least one."""
        return max(1, self.threads // self.devices)

    @property
    def id(self) -> str:
        """A name that is unique in a run and the same in every run."""
        words = [self.framework, self.implementation, self.precision, self.mode or "auto"]
        words += [f"batch{self.batch_size}", f"threads{self.threads}", f"input-{self.input}"]
        # Devices only where there are several: older documents still name the same things.
        words += [f"devices{self.devices}"] * (self.devices > 1) + ["again"] * self.again
        return "/".join(words)


def labels(configurations: Sequence[Configuration]) -> list[str]:
    """Return a short name for each: the framework, and what distinguishes it from the others."""
    names = Configuration.__dataclass_fields__
    varying = {name for name in names if len({getattr(c, name) for c in configurations}) > 1}
    short, found = {name: option for option, name in PRECISIONS.items()}, []
    for c in configurations:
        words = {
            c.implementation: c.implementation != "ours",
            short[c.precision]: "precision" in varying,
            str(c.mode): c.mode is not None,
            f"batch {c.batch_size}": "batch_size" in varying,
            f"threads {c.threads}": "threads" in varying,
            f"{c.devices} devices": "devices" in varying and c.devices > 1,
            f"from {c.input}": c.input != "device",
            "again": c.again,
        }
        found.append(" ".join([c.framework, *(word for word, needed in words.items() if needed)]))
    return found


@dataclass(frozen=True)
class Plan:
    """What to measure, with every default resolved: JSON data, `requested` in a document.

    `modes` is empty where each implementation chooses, `steps` per window, None for about a second,
    `data` what the loader loads, None for Fashion-MNIST. Times are in seconds.
    """

    frameworks: list[str]
    system: str
    loss: str
    width: int
    image_size: int
    channels: int
    batch_sizes: list[int]
    batch_reason: str
    precisions: list[str]
    modes: list[str]
    baselines: bool
    aa: bool
    device: DeviceName
    device_reason: str
    threads: list[int]
    devices: list[int]
    input: str
    data: str | None
    steps: int | None
    rounds: int
    time_budget: float
    time_limit: float
    seed: int
    json: str | None
    report: str | None

    @cached_property
    def configurations(self) -> list[Configuration]:
        """Every configuration, in the order of the tables."""
        return [
            Configuration(name, kind, precision, mode, size, threads, self.input, again, devices)
            for size, threads, devices, precision, name in itertools.product(
                self.batch_sizes, self.threads, self.devices, self.precisions, self.frameworks
            )
            for kind, mode in self._variants(name, devices)
            for again in ((False, True) if self.aa else (False,))
        ]

    def _variants(self, framework: str, devices: int) -> list[tuple[str, str | None]]:
        modes = [mode for mode in self.modes if mode in MODES[framework]]
        baseline = [("baseline", None)] if self.baselines and devices == 1 else []
        return [*(("ours", mode) for mode in modes or (None,)), *baseline]

    @cached_property
    def labels(self) -> dict[str, str]:
        """The short name of every configuration by its id."""
        ids = [configuration.id for configuration in self.configurations]
        return dict(zip(ids, labels(self.configurations), strict=True))

    @property
    def order(self) -> list[tuple[Configuration, int]]:
        """Configuration and round of every worker: rounds one after another, each one shuffled."""
        every = self.configurations  # all of which a machine that slows down meanwhile slows down
        return [
            (every[i], number)
            for number in range(self.rounds)
            for i in stream(self.seed, "benchmark_order", number).permutation(len(every))
        ]

    def spec(self, batch_size: int) -> SystemSpec:
        """Return the system to train."""
        chosen = {name: getattr(self, name) for name in CHOSEN}
        return SYSTEMS[self.system].replace(batch_size=batch_size, **chosen)


@dataclass(frozen=True)
class Request:
    """One worker's task, as JSON; `budget` is in seconds of measuring, once it is compiled.

    A window is long enough that the synchronisation at its end does not show.
    """

    plan: Plan
    configuration: Configuration
    round: int
    budget: float
    window_ms: float = 1000.0

    @property
    def spec(self) -> SystemSpec:
        """The system to train, with its loss, width and batch size."""
        return self.plan.spec(self.configuration.batch_size)

    @property
    def measures_rates(self) -> bool:
        """Whether the worker measures what the device can do at best: once is enough, 12 s each."""
        asked = self.configuration
        return self.round == 0 and asked.implementation == "ours" and not asked.again

    def to_json(self) -> str:
        """Return the request as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Rebuild a request from `to_json`."""
        data: dict[str, Any] = json.loads(text)
        plan, configuration = Plan(**data.pop("plan")), Configuration(**data.pop("configuration"))
        return cls(plan, configuration, **data)
