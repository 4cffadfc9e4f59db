"""An implementation in Python behind the protocol: `python -m shared.conformance.serve NAME`."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from shared.conformance.protocol import (
    METHODS,
    VERSION,
    ProtocolError,
    RefusedError,
    RequestFailedError,
    read_line,
    write_line,
)
from shared.fixtures.load import LOSS_FIELDS
from shared.interface import load_implementation
from shared.spec import AdamSpec, SystemSpec

Result = dict[str, Any]


class Server:
    """Answers requests with an implementation's methods; keeps its states and numbers them.

    In a process of its own it stands behind `main`; in a test it is a session itself. An
    exception of the implementation becomes RefusedError (a NotImplementedError, or a ValueError
    of `create`, which is asked for a dtype and a system) or RequestFailedError.
    """

    def __init__(self, implementation: Any) -> None:
        self._implementation = implementation
        self._states: list[Any] = []
        self.name = str(getattr(implementation, "name", type(implementation).__name__))
        self.methods = tuple(m for m in METHODS if callable(getattr(implementation, m, None)))

    def call(self, method: str, arguments: Mapping[str, Any]) -> Result:
        """Return the result of one request."""
        if method not in self.methods:
            raise RequestFailedError(f"no method {method!r}; offered are {', '.join(self.methods)}")
        try:
            return getattr(self, f"_{method}")(**arguments)
        except NotImplementedError as error:
            raise RefusedError(_one_line(error)) from error
        except Exception as error:  # whatever anybody raises is an answer
            if method == "create" and isinstance(error, ValueError):
                raise RefusedError(_one_line(error)) from error
            raise RequestFailedError(_described(error)) from error

    def _loss(
        self, loss: str, real_scores: np.ndarray, fake_scores: np.ndarray, labels: dict[str, float]
    ) -> Result:
        values = self._implementation.loss(loss, real_scores, fake_scores, **labels)
        return {field: np.asarray(getattr(values, field)) for field in LOSS_FIELDS}

    def _create(self, spec: dict[str, Any], seed: int, dtype: str) -> Result:
        system = SystemSpec.from_dict(spec)
        self._states.append(self._implementation.create(system, seed=seed, dtype=dtype))
        return {"state": len(self._states) - 1}

    def _generate(self, state: int, latents: np.ndarray, training: bool) -> Result:
        made = self._implementation.generate(self._states[state], latents, training=training)
        return {"images": np.asarray(made)}

    def _discriminate(self, state: int, images: np.ndarray, training: bool) -> Result:
        made = self._implementation.discriminate(self._states[state], images, training=training)
        return {"scores": np.asarray(made)}

    def _gradients(self, state: int, real_images: np.ndarray, latents: np.ndarray) -> Result:
        made = self._implementation.gradients(self._states[state], real_images, latents)
        return {"gradients": _arrays(made)}

    def _train_step(self, state: int, real_images: np.ndarray, latents: np.ndarray) -> Result:
        made = self._implementation.train_step(self._states[state], real_images, latents)
        return {"metrics": {name: np.float64(value) for name, value in made.items()}}

    def _export_state(self, state: int) -> Result:
        return {"arrays": _arrays(self._implementation.export_state(self._states[state]))}

    def _import_state(self, state: int, arrays: dict[str, np.ndarray]) -> Result:
        self._implementation.import_state(self._states[state], arrays)
        return {}

    def _synchronize(self, state: int) -> Result:
        self._implementation.synchronize(self._states[state])
        return {}

    def _adam(
        self,
        parameter: np.ndarray,
        gradient: np.ndarray,
        m: np.ndarray,
        v: np.ndarray,
        step: int,
        settings: dict[str, float],
    ) -> Result:
        made = self._implementation.adam(parameter, gradient, m, v, step, AdamSpec(**settings))
        return dict(zip(("parameter", "m", "v"), map(np.asarray, made), strict=True))


def _arrays(made: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in made.items()}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _described(error: Exception) -> str:
    """Return an exception in one line, with the place that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}:{place.lineno}"
    return f"{type(error).__name__}: {_one_line(error)} ({where})"


def serve(server: Server, requests: BinaryIO, answers: BinaryIO) -> None:
    """Say hello, then answer line by line until the requests end."""
    hello = {"protocol": VERSION, "name": server.name, "methods": list(server.methods)}
    answers.write(write_line({"hello": hello}))
    answers.flush()
    for line in requests:
        answers.write(_answer(server, read_line(line)))
        answers.flush()


def _answer(server: Server, request: dict[str, Any]) -> bytes:
    try:
        result = server.call(request["method"], request["arguments"])
        return write_line({"id": request["id"], "result": result})
    except RefusedError as error:
        kind, message = "refused", str(error)
    except (RequestFailedError, ProtocolError) as error:
        kind, message = "failed", str(error)
    return write_line({"id": request["id"], "error": {"kind": kind, "message": message}})


def _private_stdout() -> BinaryIO:
    """Return stdout for the protocol alone; whatever anybody prints goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def main(arguments: Sequence[str]) -> int:
    """Serve the implementation that is named; returns 2 where it cannot be loaded."""
    answers = _private_stdout()
    if len(arguments) != 1:
        print(f"received {len(arguments)} arguments, expected one implementation", file=sys.stderr)
        return 2
    try:
        implementation = load_implementation(arguments[0])
    except (ImportError, ValueError) as error:
        print(_one_line(error), file=sys.stderr)
        return 2
    serve(Server(implementation), sys.stdin.buffer, answers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
