"""What a command says on stdout and stderr: in any locale, and when nobody reads any more."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import TextIO

from shared.files.errors import one_line

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_OUTPUT_CLOSED = 141  # 128 + SIGPIPE, what a shell reports of `yes | head`


class Output:
    """Lines on stdout. `closed` turns true when they cannot be written any more.

    That is, when a reader such as `head` has gone away or the disk of a log is full.
    """

    def __init__(self) -> None:
        self.closed = False

    def say(self, text: str) -> None:
        """Print one text, at once; nothing at all once it is closed."""
        if self.closed:
            return
        try:
            print(text, flush=True)
        except OSError:
            self.closed = True
            _silence(sys.stdout)


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """Make stdout and stderr take every character, and end without a word if they are pipes.

    A character that the encoding of a stream lacks is written as \\u2026.
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream in streams:
            try:
                stream.flush()
            except OSError:
                _silence(stream)


def run_command(program: str, work: Callable[[], int | None], *, debug: bool = False) -> int:
    """Do the work of a command and return its exit code, 0 if the work returns none.

    Bad input, a missing framework and a disk that refuses become one line on stderr and exit code
    2; Ctrl-C ends with 130. `debug` adds the traceback. Anything else is a fault of ours and
    passes through.
    """
    with safe_streams():
        try:
            return work() or 0
        except (ValueError, OSError, ImportError) as error:
            if debug:
                print_error(traceback.format_exc().rstrip())
            print_error(f"{program}: error: {one_line(str(error))}")
            return EXIT_BAD_INPUT
        except KeyboardInterrupt:
            print_error(f"{program}: interrupted")
            return EXIT_INTERRUPTED


def print_error(line: str) -> None:
    """Print one line on stderr, if anybody reads it."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _silence(stream: TextIO) -> None:
    """Lead a stream into nothing, because Python flushes it once more when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
