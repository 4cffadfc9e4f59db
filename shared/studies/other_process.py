"""An implementation in a process with its own number of threads: `pytorch@threads=2`."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from shared.interface import load_implementation
from shared.spec import SystemSpec

Arrays = dict[str, np.ndarray]

THREADS = "@threads="
# What a framework reads its number of threads from. JAX has no such setting.
THREAD_VARIABLES = {
    "pytorch": ("OMP_NUM_THREADS",),
    "tf": ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
}


class Trainer(Protocol):
    """The part of `shared.interface.Implementation` that a trajectory needs."""

    name: str

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> Any:
        """Return a fresh training state."""

    def train_step(
        self, state: Any, real_images: np.ndarray, latents: np.ndarray
    ) -> dict[str, float]:
        """Make one training step and return its losses."""

    def export_state(self, state: Any) -> Arrays:
        """Return the whole state."""

    def import_state(self, state: Any, arrays: Arrays) -> None:
        """Replace the whole state."""


class OtherProcess:
    """An implementation in a process of its own, which has its own number of threads."""

    def __init__(self, implementation: str, threads: int) -> None:
        self.name = f"{implementation}{THREADS}{threads}"
        context = multiprocessing.get_context("spawn")
        self._connection, far_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(implementation, far_end), daemon=True, name=self.name
        )
        # Frameworks read these when they are first imported, so a process cannot change its own.
        variables = dict.fromkeys(THREAD_VARIABLES[implementation], str(threads))
        with _environment(variables):
            self._process.start()
        far_end.close()

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> int:
        """Return the number of a fresh state, which stays in the other process."""
        return self._call("create", spec, seed=seed, dtype=dtype)

    def train_step(
        self, state: int, real_images: np.ndarray, latents: np.ndarray
    ) -> dict[str, float]:
        """Make one training step and return its losses."""
        return self._call("train_step", state, real_images, latents)

    def export_state(self, state: int) -> Arrays:
        """Return the whole state."""
        return self._call("export_state", state)

    def import_state(self, state: int, arrays: Arrays) -> None:
        """Replace the whole state."""
        self._call("import_state", state, arrays)

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join()

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        self._connection.send((method, arguments, options))
        try:
            result = self._connection.recv()
        except EOFError as error:
            raise RuntimeError(f"the process of {self.name} ended; see its output") from error
        if isinstance(result, Exception):
            raise result
        return result


def _serve(name: str, connection: Any) -> None:
    """Answer `OtherProcess` until it hangs up."""
    implementation, states = load_implementation(name), []
    while True:
        try:
            method, arguments, options = connection.recv()
        except EOFError:
            return
        try:
            if method == "create":
                states.append(implementation.create(*arguments, **options))
                connection.send(len(states) - 1)
            else:
                number, *others = arguments
                connection.send(getattr(implementation, method)(states[number], *others))
        except ValueError as error:
            connection.send(error)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def load_trainer(name: str) -> Trainer:
    """Load an implementation, the "reference", or "pytorch@threads=2" in a process of its own."""
    if THREADS not in name:
        return load_implementation("shared.reference.adapter" if name == "reference" else name)
    implementation, threads = name.split(THREADS, 1)
    if implementation not in THREAD_VARIABLES or not threads.isdecimal() or int(threads) < 1:
        known = " or ".join(f"{n}{THREADS}N" for n in THREAD_VARIABLES)
        raise ValueError(f"received {name!r}; expected {known} with N a whole number from 1")
    return OtherProcess(implementation, int(threads))
