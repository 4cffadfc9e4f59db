"""One input, read and judged, in the process that calls it."""

import shutil
import time
import traceback
import unicodedata
import warnings
from pathlib import Path

from tests.apparatus.fuzz import memory
from tests.apparatus.fuzz.reader import (
    FAULT,
    MEBIBYTE,
    READ,
    REFUSED,
    Case,
    Outcome,
    Reader,
    draw_of,
)
from tests.apparatus.fuzz.watch import Watch

MAXIMUM_MESSAGE = 1200  # characters of a clear error


def judge(reader: Reader, seed: int, index: int, folder: Path, watch: Watch) -> Outcome:
    """Make an input below `folder`, read it and say what became of it; leaves nothing there."""
    place = folder / str(index)
    place.mkdir()
    case = reader.make(draw_of(reader.name, seed, index), place)
    before = memory.reset_peak()
    began = time.process_time()
    watch.start()
    error, warned = _error_of(reader, case)
    ran = watch.stop()
    seconds, peak = time.process_time() - began, memory.peak() - before
    problems = [f"code ran: {event}" for event in ran]
    problems += [f"a warning: {w.category.__name__}: {w.message}" for w in warned]
    if peak > reader.memory:
        problems.append(
            f"{peak / MEBIBYTE:.0f} MiB of memory, bound {reader.memory / MEBIBYTE:.0f} MiB"
        )
    if seconds > reader.processor_seconds:
        problems.append(f"{seconds:.0f} s of work, bound {reader.processor_seconds:g} s")
    if error is not None:
        problems += _problems_of_refusal(reader, case, error)
    shutil.rmtree(place, ignore_errors=True)
    if problems:
        lines = [*problems, *([] if error is None else _first_lines(error))]
        mark = f"{problems[0].split(':')[0]} {_place_of(error)}"
        return Outcome(index, FAULT, case.label, tuple(lines), peak, seconds, mark)
    lines = [] if error is None else [str(error)]
    return Outcome(
        index, READ if error is None else REFUSED, case.label, tuple(lines), peak, seconds
    )


def _error_of(
    reader: Reader, case: Case
) -> tuple[BaseException | None, list[warnings.WarningMessage]]:
    """Return what a read raised, and what it warned of: that would stand beside the one line."""
    with warnings.catch_warnings(record=True, action="ignore") as warned:
        warnings.simplefilter("always", RuntimeWarning)
        warnings.simplefilter("always", SyntaxWarning)
        try:
            reader.read(case.path)
        except KeyboardInterrupt:
            raise
        # Panics of Rust are no Exception.
        except BaseException as error:  # noqa: BLE001
            return error, warned
    return None, warned


def _problems_of_refusal(reader: Reader, case: Case, error: BaseException) -> list[str]:
    if not isinstance(error, reader.errors):
        return [f"{type(error).__name__}: not an error of this reader"]
    text = str(error)
    problems = []
    if len(text) > MAXIMUM_MESSAGE:
        problems.append(f"a message of {len(text)} characters")
    if odd := sorted({c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}):
        problems.append(f"a message with the characters {odd[:4]!a}")
    if not any(name in text for name in case.names):
        problems.append("a message that does not name the file")
    return problems


def _first_lines(error: BaseException) -> list[str]:
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__)[-8:])
    return [line[:300] for line in text.splitlines()[-12:]]


def _place_of(error: BaseException | None) -> str:
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    own = [f for f in frames if "/tests/apparatus/fuzz/" not in f.filename]
    last = own[-1] if own else None
    return f"{type(error).__name__} in {last.name}" if last else type(error).__name__
