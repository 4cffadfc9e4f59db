"""An implementation in a process with another number of threads: `pytorch@threads=2`."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, cast

from shared.interface import Implementation, State, canonical_name, load_implementation

THREADS = "@threads="
# What a framework reads its number of threads from. JAX has no such setting.
THREAD_VARIABLES = {
    "pytorch": ("OMP_NUM_THREADS",),
    "tf": ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
}


class OtherProcess:
    """An implementation called in another process, whose end raises BrokenExecutor."""

    def __init__(self, implementation: str, threads: int) -> None:
        self.name = f"{implementation}{THREADS}{threads}"
        # Frameworks read these when they are first imported, so a process cannot change its own.
        variables = dict.fromkeys(THREAD_VARIABLES[implementation], str(threads))
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self._pool.submit(_load, implementation, variables).result()

    def __getattr__(self, method: str) -> Callable[..., Any]:
        """Return a method; the state that it takes is the number that `create` returned."""
        return lambda *given, **named: self._pool.submit(_call, method, given, named).result()


# In the other process.
_loaded: list[Implementation] = []
_states: list[State] = []


def _load(name: str, variables: dict[str, str]) -> None:
    os.environ.update(variables)
    _loaded.append(load_implementation(name))


def _call(method: str, given: tuple, named: dict[str, Any]) -> Any:
    if method != "create":
        number, *rest = given
        return getattr(_loaded[0], method)(_states[number], *rest, **named)
    _states.append(_loaded[0].create(*given, **named))
    return len(_states) - 1


def load_trainer(name: str) -> Implementation:
    """Load an implementation by name, or "pytorch@threads=2" in another process."""
    if THREADS not in name:
        return load_implementation(name)
    implementation, threads = name.split(THREADS, 1)
    implementation = canonical_name(implementation)
    if implementation not in THREAD_VARIABLES or not threads.isdecimal() or int(threads) < 1:
        known = " or ".join(f"{n}{THREADS}N" for n in THREAD_VARIABLES)
        raise ValueError(f"received {name!r}; expected {known} with N a whole number from 1")
    return cast(Implementation, OtherProcess(implementation, int(threads)))
