"""An implementation in a separate process, asked by lines of JSON."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shared.conformance.protocol import (
    VERSION,
    ProtocolError,
    RefusedError,
    RequestFailedError,
    SessionEndedError,
    read_line,
    write_line,
)
from shared.files.child_process import ChildEndedError, ChildProcess

# Of the libraries that read these; what is set already holds. The matrices are small, and threads
# that spin beside each other make them slower.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
SHOWN_STDERR = 1000  # characters of its end


def serve_command(implementation: str) -> list[str]:
    """Return the command that serves an implementation in Python by name or dotted path."""
    return [sys.executable, "-m", "shared.conformance.serve", implementation]


class ChildSession(ChildProcess):
    """A session with a program that speaks the protocol on stdin and stdout.

    `time_limit` is in seconds, for its hello and for every request. A process that exceeds it,
    ends or breaks the protocol is killed with its group; from then on every call raises
    SessionEndedError with the reason and the end of its stderr. Starting one raises
    SessionEndedError if there is no such program or no hello.
    """

    def __init__(self, command: Sequence[str], time_limit: float) -> None:
        self._time_limit = time_limit
        self._number = 0
        self._ended: str | None = None
        try:
            super().__init__(command, environment=ONE_THREAD | os.environ)
        except OSError as error:
            raise SessionEndedError(f"cannot start {command[0]!r}: {error.strerror}") from error
        try:
            self.name, self.methods = self._exchange(b"", _checked_hello)
        except BaseException as error:  # Ctrl-C too, which the process does not hear
            self.__exit__(type(error))
            raise

    def call(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result of one request."""
        if self._ended is not None:
            raise SessionEndedError(self._ended)
        self._number += 1
        request = {"id": self._number, "method": method, "arguments": arguments}
        return self._exchange(write_line(request), self._result, f"{method}: ")

    def _exchange(
        self, line: bytes, check: Callable[[dict[str, Any]], Any], prefix: str = ""
    ) -> Any:
        """Send a line and return what `check` makes of the answer; a failure ends the session."""
        try:
            return check(read_line(self.ask(line, self._time_limit)))
        except (ChildEndedError, ProtocolError) as error:
            self.kill()
            reason = f"{prefix}{error}" if isinstance(error, ProtocolError) else str(error)
            errors = " ".join(self.errors().split())[-SHOWN_STDERR:]
            self._ended = f"{reason}; stderr: {errors or 'empty'}"
            raise SessionEndedError(self._ended) from error

    def _result(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return an answer's result, or raise what went wrong."""
        if answer.get("id") != self._number:
            received = answer.get("id")
            raise ProtocolError(f"an answer to request {received!r}, expected {self._number}")
        match answer:
            case {"error": {"message": str(message), **rest}}:
                failure = RefusedError if rest.get("kind") == "refused" else RequestFailedError
                raise failure(message)
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
