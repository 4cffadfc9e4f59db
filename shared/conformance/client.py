"""An implementation in a process of its own, asked by lines of JSON; it can never hang the runner.

For POSIX systems: the process leads a group of its own, which is killed as a whole.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, BinaryIO, Literal

from shared.conformance.protocol import (
    VERSION,
    ProtocolError,
    RefusedError,
    RequestFailedError,
    SessionEndedError,
    read_line,
    write_line,
)

MAXIMUM_LINE = 2**28  # bytes; a state of the widest case takes a hundredth of it
GRACE_SECONDS = 5.0  # for a process to end by itself after its input has ended
CHUNK = 2**16  # bytes that are read or written at once
# Of the libraries that read these; what is set already holds. The matrices are small, and threads
# that spin beside each other make them slower.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
SHOWN_STDERR = 1000  # characters of its end


def serve_command(implementation: str) -> list[str]:
    """Return the command that serves an implementation in Python by name or dotted path."""
    return [sys.executable, "-m", "shared.conformance.serve", implementation]


class ChildSession:
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
        self._received = bytearray()
        self._stderr: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                env=ONE_THREAD | os.environ,
                start_new_session=True,
            )
            os.set_blocking(self._pipe("stdin").fileno(), False)
        except OSError as error:
            self._stderr.close()
            raise SessionEndedError(f"cannot start {command[0]!r}: {error.strerror}") from error
        try:
            self.name, self.methods = _checked_hello(self._exchange(b""))
        except (SessionEndedError, ProtocolError) as error:
            reason = self._ended or self._end(str(error))
            self.close()
            raise SessionEndedError(reason) from error
        except KeyboardInterrupt:  # which does not reach the other session
            self._end("interrupted")
            self.close()
            raise

    def __enter__(self) -> ChildSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result of one request."""
        if self._ended is not None:
            raise SessionEndedError(self._ended)
        self._number += 1
        request = {"id": self._number, "method": method, "arguments": arguments}
        try:
            answer = self._exchange(write_line(request))
            return _result(answer, self._number)
        except ProtocolError as error:
            raise self._ending(f"{method}: {error}") from error

    def close(self) -> None:
        """End the input, give the process a moment, and kill what is left of its group."""
        self._pipe("stdin").close()
        if self._ended is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_SECONDS)
        self._kill()
        self._pipe("stdout").close()
        self._stderr.close()

    def _pipe(self, name: Literal["stdin", "stdout"]) -> IO[bytes]:
        pipe = getattr(self._process, name)
        assert pipe is not None  # both are pipes
        return pipe

    def _exchange(self, line: bytes) -> dict[str, Any]:
        """Send a line, if any, and return the next message, both within the time limit."""
        deadline = time.monotonic() + self._time_limit
        pending, end = memoryview(line), self._received.find(b"\n")
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe("stdout"), selectors.EVENT_READ)
            if line:
                selector.register(self._pipe("stdin"), selectors.EVENT_WRITE)
            while end < 0:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if time.monotonic() > deadline:
                    raise self._ending(f"no answer within {self._time_limit:g} s")
                for key, events in ready:
                    if events & selectors.EVENT_READ:
                        end = self._receive(key.fd)
                        continue
                    pending = _send(key.fd, pending)
                    if not pending:
                        selector.unregister(key.fileobj)
        message = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        return read_line(message)

    def _receive(self, descriptor: int) -> int:
        """Add what has arrived; return where the first line ends, or -1."""
        part = os.read(descriptor, CHUNK)
        if not part:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_SECONDS)
            raise self._ending(_status(self._process.returncode))
        before = len(self._received)
        self._received += part
        if before > MAXIMUM_LINE:
            raise ProtocolError(f"a line of more than {MAXIMUM_LINE} bytes")
        return self._received.find(b"\n", before)

    def _ending(self, reason: str) -> SessionEndedError:
        return SessionEndedError(self._end(reason))

    def _end(self, reason: str) -> str:
        """Kill the process' group and remember why."""
        self._kill()
        self._stderr.seek(0)
        said = " ".join(self._stderr.read().decode("utf-8", "replace").split())[-SHOWN_STDERR:]
        self._ended = f"{reason}; stderr: {said or 'empty'}"
        return self._ended

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _send(descriptor: int, pending: memoryview) -> memoryview:
    """Write what the pipe takes and return the rest; nothing where nobody reads any more."""
    try:
        return pending[os.write(descriptor, pending[:CHUNK]) :]
    except BrokenPipeError:  # the end of its output will say more
        return pending[:0]


def _status(status: int | None) -> str:
    if status is None:
        return "the process closed its output"
    if status < 0:
        return f"the process was ended by {signal.Signals(-status).name}"
    return f"the process ended with exit status {status}"


def _checked_hello(message: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    hello = message.get("hello")
    if not isinstance(hello, dict):
        raise ProtocolError(f"its first message is {message!r:.80}, expected a hello")
    if hello.get("protocol") != VERSION:
        received = hello.get("protocol")
        raise ProtocolError(f"it speaks protocol {received!r}, this kit speaks {VERSION}")
    name, methods = hello.get("name"), hello.get("methods")
    if not isinstance(name, str) or not name or not isinstance(methods, list):
        raise ProtocolError("its hello needs a name and a list of methods")
    return name, tuple(str(method) for method in methods)


def _result(answer: dict[str, Any], number: int) -> dict[str, Any]:
    """Return an answer's result, or raise what it says went wrong."""
    if answer.get("id") != number:
        raise ProtocolError(f"an answer to request {answer.get('id')!r}, expected {number}")
    error = answer.get("error")
    if error is None:
        if not isinstance(answer.get("result"), dict):
            raise ProtocolError("an answer with neither a result nor an error")
        return answer["result"]
    message = error.get("message") if isinstance(error, dict) else None
    if not isinstance(message, str):
        raise ProtocolError("an error without a message")
    raise (RefusedError if error.get("kind") == "refused" else RequestFailedError)(message)
