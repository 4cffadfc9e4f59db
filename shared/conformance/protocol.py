"""What the runner and an implementation's process send each other: one JSON object per line.

The process speaks first, `{"hello": {"protocol": 1, "name": …, "methods": […]}}`. Then every line
to it is a request, `{"id": 1, "method": …, "arguments": {…}}`, and every line from it an answer,
`{"id": 1, "result": {…}}` or `{"id": 1, "error": {"kind": "refused" or "failed", "message": …}}`.
Wherever a number can be nan, infinite or has a dtype it is an array: `{"dtype", "shape", "data"}`
with the bytes little-endian, C order, in base64, which is exact in every language.
"""

import base64
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from shared.files.child_process import ChildEndedError, ChildProcess

VERSION = 1
DTYPES = ("float32", "float64", "int64")
# Of the libraries that read these; what is set already holds. The matrices are small, and threads
# that spin beside each other make them slower.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
SHOWN_STDERR = 1000  # characters of its end


class ProtocolError(ValueError):
    """A line that breaks the protocol; the message names what it holds instead."""


class RequestError(Exception):
    """One request has no result: it is not offered, if `is_refusal`, or failed."""

    def __init__(self, message: str, *, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal


def encode(array: object) -> dict[str, Any]:
    """Return an array, or one of NumPy's scalars, as JSON data."""
    if not isinstance(array, np.ndarray | np.generic) or array.dtype.name not in DTYPES:
        kind = getattr(array, "dtype", type(array).__name__)
        raise ProtocolError(f"a value of {kind}; expected an array of {', '.join(DTYPES)}")
    little = np.asarray(array, array.dtype.newbyteorder("<"))
    data = base64.b64encode(little.tobytes()).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def decode(value: dict[str, Any]) -> Any:
    """Return the array that a JSON object is, or another as it is; ProtocolError for damage."""
    if value.keys() != {"dtype", "shape", "data"}:
        return value
    dtype, shape = value["dtype"], value["shape"]
    try:
        if dtype not in DTYPES or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("another dtype or shape")
        content = base64.b64decode(value["data"], validate=True)
        little = np.dtype(dtype).newbyteorder("<")
        return np.frombuffer(content, little).reshape(shape).astype(dtype)
    except (TypeError, ValueError) as error:
        raise ProtocolError(
            f"an array of {dtype!r:.40} and shape {shape!r:.40} ({error}); expected one of "
            f"{', '.join(DTYPES)}, a list of whole numbers, and as many numbers in base64"
        ) from error


def write_line(message: Mapping[str, Any]) -> bytes:
    """Return a message as a line; nan outside an array raises ProtocolError."""
    try:
        return json.dumps(message, allow_nan=False, default=encode).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"a message that JSON cannot hold: {error}") from error


def read_line(line: bytes) -> dict[str, Any]:
    """Return the message of a line; raises ProtocolError for anything but a JSON object."""
    reason: object = "another value"
    try:
        if isinstance(message := json.loads(line, object_hook=decode), dict):
            return message
    except (ValueError, RecursionError) as error:  # the last: nested too deep
        reason = error
    shown = line[:80].decode("utf-8", "replace").strip() + (" …" if len(line) > 80 else "")
    raise ProtocolError(f"received {shown!r} ({reason}), expected a JSON object in a line")


def serve_command(implementation: str) -> list[str]:
    """Return the command that serves an implementation in Python by name or dotted path."""
    return [sys.executable, "-m", "shared.conformance.serve", implementation]


class ChildSession(ChildProcess):
    """A session with a program that speaks the protocol on stdin and stdout.

    For its hello and for every request it has `time_limit` seconds. One that exceeds it, ends or
    breaks the protocol is killed with its group; then, as where there is none, ChildEndedError.
    """

    def __init__(self, command: Sequence[str], time_limit: float) -> None:
        self._time_limit = time_limit
        self._number = 0
        self._ended: str | None = None
        try:
            super().__init__(command, environment=ONE_THREAD | os.environ)
        except OSError as error:
            raise ChildEndedError(f"cannot start {command[0]!r}: {error.strerror}") from error
        try:
            self.name, self.methods = self._exchange(b"", _hello)
        except BaseException as error:  # Ctrl-C too, which the process does not hear
            self.__exit__(type(error))
            raise

    def call(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return a result; raises RequestError, or ChildEndedError from the end of the process."""
        if method not in self.methods:
            raise RequestError(f"no method {method}", is_refusal=True)
        if self._ended is not None:
            raise ChildEndedError(self._ended)
        self._number += 1
        request = {"id": self._number, "method": method, "arguments": arguments}
        return self._exchange(write_line(request), self._result)

    def _exchange(self, line: bytes, check: Callable[[dict[str, Any]], Any]) -> Any:
        """Send a line and return what `check` makes of the answer; a failure ends the session."""
        try:
            return check(read_line(self.ask(line, self._time_limit)))
        except (ChildEndedError, ProtocolError) as error:
            self.kill()
            errors = " ".join(self.errors().split())[-SHOWN_STDERR:]
            self._ended = f"{error}; stderr: {errors or 'empty'}"
            raise ChildEndedError(self._ended) from error

    def _result(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return an answer's result, or raise what went wrong."""
        match answer:
            case {"id": self._number, "error": {"message": str(message), **others}}:
                raise RequestError(message, is_refusal=others.get("kind") == "refused")
            case {"id": self._number, "result": dict(result)}:
                return result
        expected = f'"id": {self._number} and a "result", or an "error" with a "message"'
        raise ProtocolError(f"received {answer!r:.200}, expected {expected}")


def _hello(message: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    match message:
        case {"hello": {"protocol": int(v), "name": str(name), "methods": [*methods]}} if (
            name and v == VERSION
        ):
            return name, tuple(map(str, methods))
    expected = f'{{"hello": {{"protocol": {VERSION}, "name": "…", "methods": ["…"]}}}}'
    raise ProtocolError(f"received {message!r:.200}, expected {expected}")
