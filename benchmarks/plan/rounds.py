"""The plan of a run: every default resolved, every value in range."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from benchmarks.plan import host
from benchmarks.plan.configuration import MODES, Configuration
from benchmarks.plan.request import DeviceName, Request
from benchmarks.worker.gate import GATE_BATCH_SIZE
from shared.spec.streams import MAXIMUM_SEED, stream


@dataclass(frozen=True)
class Plan:
    """What to measure; times in seconds.

    `modes` is empty where every implementation chooses its own. `steps` is per window, None for
    about a second's worth. Raises ValueError for a value that is out of range.
    """

    frameworks: tuple[str, ...]
    system: str
    loss: str
    width: int
    batch_sizes: tuple[int, ...]
    batch_reason: str
    precisions: tuple[str, ...]
    modes: tuple[str, ...]
    baselines: bool
    aa: bool
    device: DeviceName
    device_reason: str
    threads: tuple[int, ...]
    devices: tuple[int, ...]
    input: str
    data: Path | None
    steps: int | None
    rounds: int
    time_budget: float
    time_limit: float
    seed: int
    json: Path | None
    report: Path | None

    def __post_init__(self) -> None:
        _check_counts("width", 1, self.width)
        _check_counts("batch-size", 2, *self.batch_sizes)
        _check_counts("threads", 1, *self.threads)
        _check_counts("devices", 1, *self.devices)
        _check_counts("rounds", 1, self.rounds)
        _check_counts("steps", 1, *([] if self.steps is None else [self.steps]))
        for name in ("time_budget", "time_limit"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} must be a positive number of seconds, received {value}")
        self._check_devices()
        self._check_machine()
        self._check_modes()
        if not 0 <= self.seed <= MAXIMUM_SEED:
            raise ValueError(f"--seed must be between 0 and {MAXIMUM_SEED}, received {self.seed}")
        if self.baselines and (self.system, self.loss) != ("dcgan64", "bce"):
            raise ValueError(
                "--baselines needs --system dcgan64 --loss bce, which is what public code trains; "
                f"received {self.system}, {self.loss}"
            )
        self._check_data()

    def _check_data(self) -> None:
        if self.data is not None and self.input != "loader":
            raise ValueError(f"--data needs --input loader, received --input {self.input}")
        if self.data is not None and not self.data.exists():
            raise ValueError(
                f"--data {self.data} does not exist; expected a folder of images, an IDX or an "
                ".npz file"
            )

    def _check_devices(self) -> None:
        for devices, batch_size in itertools.product(self.devices, self.batch_sizes):
            if batch_size % devices:
                raise ValueError(
                    f"--batch-size {batch_size} cannot be divided among --devices {devices}; use "
                    f"a multiple of {devices}"
                )
        for devices in self.devices:
            if GATE_BATCH_SIZE % devices:
                raise ValueError(
                    f"--devices must divide {GATE_BATCH_SIZE}, the batch that is compared with the "
                    f"NumPy reference before anything is timed; received {devices}"
                )
        if self.baselines and 1 not in self.devices:
            raise ValueError(
                "--baselines are steps on one device; put 1 among --devices, received "
                f"{' '.join(map(str, self.devices))}"
            )

    def _check_machine(self) -> None:
        most = host.available_threads()
        if max(self.threads) > most:
            raise ValueError(
                f"--threads must be at most {most}, the CPU cores that this process may use; "
                f"received {max(self.threads)}"
            )
        if "tf32" in self.precisions and self.device == "cpu":
            raise ValueError(
                "--precision tf32 needs a GPU, as CPUs have no TF32; received --device cpu: "
                "use fp32 or bf16"
            )

    def _check_modes(self) -> None:
        for framework in self.frameworks:
            if self.modes and not set(self.modes) & set(MODES[framework]):
                raise ValueError(
                    f"--mode {' '.join(self.modes)} has none for {framework}; expected one of "
                    f"{', '.join(MODES[framework])}, or leave --mode out"
                )

    @property
    def configurations(self) -> list[Configuration]:
        """Every configuration, in the order of the tables."""
        return [
            Configuration(
                framework,
                implementation,
                precision,
                mode,
                batch_size,
                threads,
                self.input,
                again,
                devices,
            )
            for batch_size, threads, devices, precision, framework in itertools.product(
                self.batch_sizes, self.threads, self.devices, self.precisions, self.frameworks
            )
            for implementation, mode in self._variants(framework, devices)
            for again in ((False, True) if self.aa else (False,))
        ]

    def _variants(self, framework: str, devices: int) -> list[tuple[str, str | None]]:
        modes = [mode for mode in self.modes if mode in MODES[framework]]
        ours: list[tuple[str, str | None]] = [("ours", mode) for mode in modes] or [("ours", None)]
        return [*ours, ("baseline", None)] if self.baselines and devices == 1 else ours

    @property
    def order(self) -> list[tuple[Configuration, int]]:
        """Configuration and round of every worker: rounds one after another, each one shuffled.

        So a machine that slows down during the run slows every configuration down.
        """
        every = self.configurations
        return [
            (every[i], number)
            for number in range(self.rounds)
            for i in stream(self.seed, "benchmark_order", number).permutation(len(every))
        ]

    def request(self, configuration: Configuration, number: int, budget: float) -> Request:
        """Return what one worker is asked to do within `budget` seconds."""
        return Request(
            configuration=configuration,
            round=number,
            system=self.system,
            loss=self.loss,
            width=self.width,
            device=self.device,
            seed=self.seed,
            steps=self.steps,
            budget=budget,
            data=None if self.data is None else str(self.data),
        )


def _check_counts(flag: str, least: int, *values: int) -> None:
    for value in values:
        if value < least:
            raise ValueError(f"--{flag} must be at least {least}, received {value}")
    if len(set(values)) < len(values):
        raise ValueError(f"--{flag} has a value twice: {' '.join(map(str, values))}")
