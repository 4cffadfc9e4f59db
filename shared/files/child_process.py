"""A program in a separate process, which can neither hang its parent nor outlive it.

For POSIX systems: the process leads a group, which is killed as a whole.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import BinaryIO, Self

from shared.files.errors import InputError

MAXIMUM_LINE = 2**28
"""Most bytes of a line; a state of the conformance kit's widest case takes a hundredth of it."""
GRACE_SECONDS = 5.0  # for a process to end by itself after its input or its output has ended
_CHUNK = 2**16  # bytes that are read or written at once


class ChildEndedError(InputError):
    """A program ended without an answer; it has been killed with its group, and nothing follows."""


class ChildTimeoutError(ChildEndedError):
    """A program gave no answer in time."""


def require_posix() -> None:
    """Raise InputError where no group of processes can be killed, as on Windows."""
    if not hasattr(os, "killpg"):
        raise InputError("starting other programs needs a POSIX system, such as Linux or macOS")


class ChildProcess:
    """A program that answers on stdout; stderr goes to a file. Its group ends with the block.

    Starting it raises OSError if there is no such program, InputError outside POSIX systems.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        require_posix()
        self._errors: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self._received = bytearray()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                env=environment,
                start_new_session=True,
            )
        except OSError:
            self._errors.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        os.set_blocking(self._input.fileno(), False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # Ctrl-C among others, which the process does not hear
            self.kill()
        self.close()

    def ask(self, line: bytes, seconds: float) -> bytes:
        """Send a line, if any, and return the next one; ChildTimeoutError or ChildEndedError."""
        deadline = time.monotonic() + seconds
        pending, end = memoryview(line), self._received.find(b"\n")
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            if line:
                selector.register(self._input, selectors.EVENT_WRITE)
            while end < 0:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if time.monotonic() > deadline:
                    raise self._timeout(seconds)
                for key, _ in ready:
                    if key.fileobj is self._output:
                        end = self._receive()
                    elif not (pending := self._send(pending)):
                        selector.unregister(self._input)
        answer = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        return answer

    def output(self, seconds: float) -> bytes:
        """Return all that a program without input prints until it ends; ChildTimeoutError."""
        try:
            return self._process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired as error:
            raise self._timeout(seconds) from error

    @property
    def exit_status(self) -> int | None:
        """The exit status, the negative number of the signal, or None while the process runs."""
        return self._process.poll()

    def errors(self) -> str:
        """Return what stderr holds so far."""
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace")

    def kill(self) -> None:
        """Kill the whole group; also where the process has ended and left others behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End the input, give the process a moment, and kill what is left of its group."""
        self._input.close()
        self._wait()
        self.kill()
        self._output.close()
        self._errors.close()

    def _wait(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_SECONDS)

    def _timeout(self, seconds: float) -> ChildTimeoutError:
        self.kill()
        return ChildTimeoutError(f"no answer within {seconds:g} s")

    def _receive(self) -> int:
        """Add what has arrived; return where the first line ends, or -1."""
        arrived = os.read(self._output.fileno(), _CHUNK)
        before = len(self._received)
        if not arrived or before > MAXIMUM_LINE:
            self._wait()
            status = self.exit_status
            self.kill()
            if arrived:
                raise ChildEndedError(f"a line of more than {MAXIMUM_LINE} bytes")
            if status is None:
                raise ChildEndedError("the process closed its output")
            if status < 0:
                raise ChildEndedError(f"the process was ended by {signal.Signals(-status).name}")
            raise ChildEndedError(f"the process ended with exit status {status}")
        self._received += arrived
        return self._received.find(b"\n", before)

    def _send(self, pending: memoryview) -> memoryview:
        """Write what the pipe takes and return the rest; nothing where nobody reads any more."""
        try:
            return pending[os.write(self._input.fileno(), pending[:_CHUNK]) :]
        except BrokenPipeError:  # the end of its output will show why
            return pending[:0]
