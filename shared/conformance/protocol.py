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


class RefusedError(Exception):
    """An implementation does not do what it was asked, a dtype for instance."""


class RequestFailedError(Exception):
    """One request failed in the implementation, which goes on."""


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
    shown = line[:80].decode("utf-8", "replace").strip() + (" …" if len(line) > 80 else "")
    try:
        message = json.loads(line, object_hook=decode)
    except ProtocolError:
        raise
    # RecursionError: nested too deep.
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"received {shown!r}, expected a line of JSON") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"received {shown!r}, expected a JSON object")
    return message


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
            self.name, self.methods = self._exchange(b"", _checked_hello, "")
        except BaseException as error:  # Ctrl-C too, which the process does not hear
            self.__exit__(type(error))
            raise

    def call(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return a result; raises RefusedError, RequestFailedError or ChildEndedError."""
        if method not in self.methods:
            raise RefusedError(f"no method {method}")
        if self._ended is not None:
            raise ChildEndedError(self._ended)
        self._number += 1
        request = {"id": self._number, "method": method, "arguments": arguments}
        return self._exchange(write_line(request), self._result, f"{method}: ")

    def _exchange(self, line: bytes, check: Callable[[dict[str, Any]], Any], prefix: str) -> Any:
        """Send a line and return what `check` makes of the answer; a failure ends the session."""
        try:
            return check(read_line(self.ask(line, self._time_limit)))
        except (ChildEndedError, ProtocolError) as error:
            self.kill()
            reason = f"{prefix}{error}" if isinstance(error, ProtocolError) else str(error)
            errors = " ".join(self.errors().split())[-SHOWN_STDERR:]
            self._ended = f"{reason}; stderr: {errors or 'empty'}"
            raise ChildEndedError(self._ended) from error

    def _result(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return an answer's result, or raise what went wrong."""
        if (received := answer.get("id")) != self._number:
            raise ProtocolError(f"an answer to request {received!r}, expected {self._number}")
        match answer:
            case {"error": {"message": str(message), "kind": "refused"}}:
                raise RefusedError(message)
            case {"error": {"message": str(message)}}:
                raise RequestFailedError(message)
            case {"error": error} if error is not None:
                raise ProtocolError("an error without a message")
            case {"result": dict(result)}:
                return result
        raise ProtocolError("an answer with neither a result nor an error")


def _checked_hello(message: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    match message.get("hello"):
        case {"protocol": received} if received != VERSION:
            raise ProtocolError(f"it speaks protocol {received!r}, this kit speaks {VERSION}")
        case {"protocol": _, "name": str(name), "methods": [*methods]} if name:
            return name, tuple(map(str, methods))
        case dict():
            raise ProtocolError(f"its hello needs protocol {VERSION}, a name and a list of methods")
    raise ProtocolError(f"its first message is {message!r:.80}, expected a hello")
