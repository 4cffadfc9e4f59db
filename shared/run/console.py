"""A command and its terminal: numbers, errors, signals, a reader that goes away, any locale."""

import argparse
import contextlib
import difflib
import io
import math
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TextIO, TypeVar

from rich import progress
from rich.console import Console
from rich.table import Column

from shared.files.errors import one_line, printable
from shared.interface import IMPLEMENTATIONS
from shared.spec.streams import MAXIMUM_SEED

T = TypeVar("T")

SECONDS_WITHOUT_PROGRESS = 2.0
SECONDS_BETWEEN_LINES = 10.0

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_TERMINATED = 143  # 128 + SIGTERM: of a scheduler, `docker stop`, a shutdown
EXIT_OUTPUT_CLOSED = 141  # 128 + SIGPIPE, what a shell reports of `yes | head`
_REASONS = {
    EXIT_INTERRUPTED: "interrupted",
    EXIT_TERMINATED: "terminated",
    EXIT_OUTPUT_CLOSED: "the output cannot be written any more: stopped",
}

# The names of the frameworks' own errors; cuBLAS, cuDNN, XLA and PyTorch's CPU allocator raise a
# RuntimeError or a subclass of it with these words.
_MEMORY_ERRORS = ("MemoryError", "OutOfMemoryError", "ResourceExhaustedError")
_MEMORY_WORDS = ("RESOURCE_EXHAUSTED", "out of memory", "can't allocate memory", "ALLOC_FAILED")


class StoppedEarly(KeyboardInterrupt):
    """A command that was asked to stop and has saved its work; it ends with `exit_code`."""

    def __init__(self, exit_code: int, where: str) -> None:
        super().__init__(f"{_REASONS[exit_code]} {where}")
        self.exit_code = exit_code


def run_command(program: str, work: Callable[[], int | None], *, debug: bool = False) -> int:
    """Do the work of a command and return its exit code, 0 if the work returns none.

    Bad input, a missing framework and a disk error become one line on stderr and exit code 2;
    Ctrl-C ends with 130, StoppedEarly with its own. Anything else, a bug of ours, passes.
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):  # takes every character, as \u2026
            stream.reconfigure(errors="backslashreplace")
    try:
        return work() or 0
    except (ValueError, OSError, ImportError, KeyboardInterrupt) as error:
        if debug:
            print_error(traceback.format_exc().rstrip())
        words = str(error)
        if isinstance(error, OSError) and error.strerror:  # no number, no second file name
            words = (f"{error.filename}: " if error.filename else "") + error.strerror
        message = one_line(words)
        if isinstance(error, KeyboardInterrupt):
            print_error(f"{program}: {message or 'interrupted'}")
            return error.exit_code if isinstance(error, StoppedEarly) else EXIT_INTERRUPTED
        print_error(f"{program}: error: {message}")
        return EXIT_BAD_INPUT
    finally:
        for stream in streams:
            try:
                stream.flush()
            except OSError:
                silence(stream)


def is_out_of_memory(error: BaseException) -> bool:
    """Decide by name and text whether an error of any framework means that memory ran out."""
    if any(kind.__name__ in _MEMORY_ERRORS for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _MEMORY_WORDS)


def command(
    program: str,
    description: str | None,
    add_options: Callable[[argparse.ArgumentParser], object],
    work: Callable[[argparse.Namespace], int | None],
    **parser_options: Any,
) -> Callable[..., int]:
    """Return the `main` of a command, by `run_command`, which takes an option called debug."""

    def main(arguments: Sequence[str] | None = None) -> int:
        parser = OneLineParser(
            prog=program, description=description, allow_abbrev=False, **parser_options
        )
        add_options(parser)
        options = parser.parse_args(arguments)
        return run_command(program, lambda: work(options), debug=getattr(options, "debug", False))

    return main


def leave_others(code: int) -> int:
    """Return the exit code of one of several processes; one that failed ends here."""
    # An orderly end of JAX and TensorFlow would wait for the others, which may be gone.
    if code == EXIT_BAD_INPUT:
        os._exit(code)  # `run_command` has flushed what was printed
    return code


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage; it knows what was meant.

    `source` is what they begin with where the arguments are not those of the command line.
    """

    source = ""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, with the option or the choice that was meant; exit code 2."""
        if unknown := re.match(r"unrecognized arguments: (--[^\s=]+)", message):
            flags = [flag for flag in self._option_string_actions if not flag.startswith("--no-")]
            message += suggestion(unknown[1], flags)
        if choice := re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
            message += suggestion(choice[1], re.findall(r"[^\s,']+", choice[2]))
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {one_line(self.source + message)}\n")


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return "; did you mean …?" for a misspelt or shortened name, or "" for an unknown one.

    >>> suggestion("--lr", ["--learning-rate", "--loss"])
    '; did you mean --learning-rate?'
    """
    start = name.lower().replace("_", "-")
    initials = {other: "".join(re.findall(r"\b\w", other)) for other in known}
    near = (
        [other for other in known if start.strip("-") and other.startswith(start)]
        or [other for other in known if initials[other] == start.strip("-")]
        or difflib.get_close_matches(start, known, n=1)
    )
    return f"; did you mean {' or '.join(near[:3])}?" if near else ""


def add_implementations(
    parser: argparse.ArgumentParser, default: Collection[str] = IMPLEMENTATIONS, note: str = ""
) -> None:
    """Add the names of implementations, as many as wanted, none for the default."""
    text = f"names or dotted paths{note} (default: {', '.join(default)})"
    add = parser.add_argument
    add("implementations", nargs="*", default=default, metavar="IMPLEMENTATION", help=text)


def whole(least: int, most: float = math.inf, why: str = "") -> Callable[[str], int]:
    """Return what makes a whole number within limits of an option's text."""

    def parse_whole(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            limit = f"at least {least}" if value < least else f"at most {most}{why}"
            raise argparse.ArgumentTypeError(f"must be {limit}, received {value}")
        return value

    parse_whole.__name__ = "whole number"  # what argparse calls it where int() refuses the text
    return parse_whole


def positive(text: str) -> float:
    """Return the number of an option that has to be positive and finite."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number, received {text}")
    return value


seed_number = whole(0, MAXIMUM_SEED)


def print_error(line: str) -> None:
    """Print one line on stderr, if anybody reads it."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def bar_on(
    console: Console, clock: type[progress.ProgressColumn], **options: Any
) -> progress.Progress:
    """Return a bar whose last column `clock` makes, disabled where none can move."""
    # FORCE_COLOR, which a CI sets, makes rich take a file for a terminal.
    moves = console.is_interactive and console.file.isatty() and not os.environ.get("CI")
    whole = Column(no_wrap=True)
    cut = Column(no_wrap=True, overflow="ellipsis", max_width=max(console.width - 28, 1))
    text = progress.TextColumn("{task.description}", markup=False, table_column=cut)
    count = progress.MofNCompleteColumn(table_column=whole)
    columns = progress.BarColumn(24), count, text, clock(table_column=whole)
    return progress.Progress(*columns, console=console, disable=not moves, **options)


@contextlib.contextmanager
def shown_progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show on stderr how far a block is that takes longer than two seconds; yields `advance`.

    On a terminal a bar, which vanishes; elsewhere a plain line every ten seconds. Of the `total`
    parts, `advance(n)` reports that n more are done. The block itself prints nothing.
    """
    settings = {"transient": True, "redirect_stdout": False}  # which is the command's result
    bar = bar_on(Console(stderr=True), progress.TimeElapsedColumn, **settings)
    what = printable(what)
    task, start, ended = bar.add_task(what, total=total), time.monotonic(), threading.Event()

    def show() -> None:
        if not ended.wait(SECONDS_WITHOUT_PROGRESS):
            bar.start()
        while bar.disable and not ended.is_set():
            done = f"{bar.tasks[0].completed:,.0f} of {total:,}"
            print_error(f"{what}: {done}, {time.monotonic() - start:.0f} s")
            ended.wait(SECONDS_BETWEEN_LINES)

    shown = threading.Thread(target=show, daemon=True)
    shown.start()
    try:
        yield lambda count: bar.advance(task, count)
    finally:
        ended.set()
        shown.join()
        bar.stop()


def tracked(what: str, items: Collection[T]) -> Iterator[T]:
    """Yield the items and show, by `shown_progress`, how many of them are done."""
    with shown_progress(what, len(items)) as advance:
        for item in items:
            yield item
            advance(1)


def text_table(rows: Sequence[Sequence[str]], alignment: str) -> str:
    """Return rows as text; `alignment` holds < or > for each column, its last one for the rest."""
    columns = list(zip(*rows, strict=True))
    sides = alignment.ljust(len(columns), alignment[-1])
    formats = [f"{s}{max(map(len, column))}" for s, column in zip(sides, columns, strict=True)]
    return "\n".join("  ".join(map(format, row, formats)).rstrip() for row in rows)


def silence(stream: TextIO) -> None:
    """Lead a stream into nothing, because Python flushes it once more when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


@contextlib.contextmanager
def hidden_stderr() -> Iterator[None]:
    """Hide what a block writes on stderr, libraries in C too, unless it raises."""
    with tempfile.TemporaryFile() as hidden:
        stderr = os.dup(2)
        try:
            os.dup2(hidden.fileno(), 2)
            yield
        except BaseException:
            hidden.seek(0)
            os.write(stderr, hidden.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def set_handlers(handlers: Mapping[int, Any]) -> dict[int, Any]:
    """Install signal handlers and return those before; only the main thread may, others do not."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number, handler in handlers.items()}


class StopSignals:
    """Ctrl-C and SIGTERM in a block: the first is a request, the second an order.

    `exit_code` is None until one came. SIGTERM is left to another handler, and unless alone.
    """

    def __init__(self, *, alone: bool) -> None:
        self.exit_code: int | None = None
        takes_sigterm = alone and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        self._taken = (signal.SIGINT, signal.SIGTERM) if takes_sigterm else (signal.SIGINT,)

    def __enter__(self) -> None:
        self._previous = set_handlers(dict.fromkeys(self._taken, self._on_signal))

    def __exit__(self, *_: object) -> None:
        set_handlers(self._previous)

    def _on_signal(self, number: int, frame: object) -> None:
        self.exit_code = 128 + number
        set_handlers(self._previous)  # a second one stops at once
        # Not print: it could be what was interrupted, and it may not be entered twice.
        name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        with contextlib.suppress(OSError):  # nobody reads it, which is no reason to lose the step
            os.write(2, f"\nstopping after this step; {name} again stops at once\n".encode())
