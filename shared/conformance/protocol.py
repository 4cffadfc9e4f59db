"""What the runner and an implementation's process send each other: one JSON object per line.

The process speaks first, `{"hello": {"protocol": 1, "name": …, "methods": […]}}`. Then every line
to it is a request, `{"id": 1, "method": …, "arguments": {…}}`, and every line from it an answer,
`{"id": 1, "result": {…}}` or `{"id": 1, "error": {"kind": "refused" or "failed", "message": …}}`.
Wherever a number can be nan, infinite or has a dtype it is an array: `{"dtype", "shape", "data"}`
with the bytes little-endian, C order, in base64, which is exact in every language.
"""

import base64
import json
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

VERSION = 1
DTYPES = ("float32", "float64", "int64")


class ProtocolError(ValueError):
    """A line that breaks the protocol; the message names what it holds instead."""


class RefusedError(Exception):
    """An implementation does not do what it was asked, a dtype for instance."""


class RequestFailedError(Exception):
    """One request failed in the implementation, which goes on."""


class SessionEndedError(Exception):
    """The implementation's process ended, hung or spoke another language: nothing more comes."""


class Session(Protocol):
    """An implementation that can be asked."""

    name: str
    methods: tuple[str, ...]

    def call(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result of one request.

        Raises RefusedError, RequestFailedError or SessionEndedError.
        """


def encode(array: object) -> dict[str, Any]:
    """Return an array, or one of NumPy's scalars, as JSON data."""
    if not isinstance(array, np.ndarray | np.generic) or array.dtype.name not in DTYPES:
        kind = getattr(array, "dtype", type(array).__name__)
        raise ProtocolError(f"a value of {kind}; expected an array of {', '.join(DTYPES)}")
    little = np.asarray(array, array.dtype.newbyteorder("<"))
    data = base64.b64encode(little.tobytes()).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def decode(value: dict[str, Any]) -> Any:
    """Return the array that a JSON object is, or any other object as it is.

    An array that does not hold what it declares raises ProtocolError.
    """
    if value.keys() != {"dtype", "shape", "data"}:
        return value
    dtype, shape, data = value["dtype"], value["shape"], value["data"]
    if dtype not in DTYPES:
        raise ProtocolError(f"an array of dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    whole = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if not whole or not isinstance(data, str):
        raise ProtocolError(f"an array of shape {shape!r}; expected whole numbers, data in base64")
    try:
        content = base64.b64decode(data, validate=True)
    except ValueError as error:
        raise ProtocolError(f"an array whose data is not base64: {error}") from error
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if len(content) != size:
        raise ProtocolError(f"{len(content)} bytes for {dtype}{shape}, which takes {size}")
    little = np.dtype(dtype).newbyteorder("<")
    return np.frombuffer(content, little).reshape(shape).astype(dtype)


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
