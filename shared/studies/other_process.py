"""An implementation in a process with its own number of threads: `pytorch@threads=2`."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any, cast

import numpy as np

from shared.interface import Implementation, State, canonical_name, load_implementation
from shared.spec import SystemSpec

THREADS = "@threads="
# What a framework reads its number of threads from. JAX has no such setting.
THREAD_VARIABLES = {
    "pytorch": ("OMP_NUM_THREADS",),
    "tf": ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
}


class OtherProcess:
    """What a trajectory needs of an implementation; a state is the number that it has over there.

    A process that ends raises `concurrent.futures.BrokenExecutor`.
    """

    def __init__(self, implementation: str, threads: int) -> None:
        self.name = f"{implementation}{THREADS}{threads}"
        # Frameworks read these when they are first imported, so a process cannot change its own.
        variables = dict.fromkeys(THREAD_VARIABLES[implementation], str(threads))
        self._pool = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), _set_variables, (variables,)
        )
        self._call(_load, implementation)

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> int:
        """Return the number of a fresh state."""
        return self._call(_create, spec, seed, dtype)

    def train_step(
        self, state: int, real_images: np.ndarray, latents: np.ndarray
    ) -> dict[str, float]:
        """Make one training step and return its losses."""
        return self._call(_on_state, "train_step", state, real_images, latents)

    def export_state(self, state: int) -> dict[str, np.ndarray]:
        """Return the whole state."""
        return self._call(_on_state, "export_state", state)

    def import_state(self, state: int, arrays: dict[str, np.ndarray]) -> None:
        """Replace the whole state."""
        self._call(_on_state, "import_state", state, arrays)

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()

    def _call(self, function: Any, *arguments: Any) -> Any:
        return self._pool.submit(function, *arguments).result()


# In the other process.
_loaded: list[Implementation] = []
_states: list[State] = []


def _set_variables(variables: dict[str, str]) -> None:
    os.environ.update(variables)


def _load(name: str) -> None:
    _loaded.append(load_implementation(name))


def _create(spec: SystemSpec, seed: int, dtype: str) -> int:
    _states.append(_loaded[0].create(spec, seed=seed, dtype=dtype))
    return len(_states) - 1


def _on_state(method: str, number: int, *arguments: Any) -> Any:
    return getattr(_loaded[0], method)(_states[number], *arguments)


def load_trainer(name: str) -> Implementation:
    """Load an implementation by name, or "pytorch@threads=2" in a process of its own."""
    if THREADS not in name:
        return load_implementation(name)
    implementation, threads = name.split(THREADS, 1)
    implementation = canonical_name(implementation)
    if implementation not in THREAD_VARIABLES or not threads.isdecimal() or int(threads) < 1:
        known = " or ".join(f"{n}{THREADS}N" for n in THREAD_VARIABLES)
        raise ValueError(f"received {name!r}; expected {known} with N a whole number from 1")
    return cast(Implementation, OtherProcess(implementation, int(threads)))
