"""What can go wrong while a run trains, and how it is said."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from shared.files.errors import printable
from shared.run.console import EXIT_INTERRUPTED, EXIT_OUTPUT_CLOSED
from shared.run.options import TrainingOptions
from shared.run.signals import EXIT_TERMINATED
from shared.spec import SystemSpec

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MAXIMUM_QUOTE = 200
"""Most characters of what a framework says when it is out of memory: some print pages."""

_REASONS = {
    EXIT_INTERRUPTED: "interrupted",
    EXIT_TERMINATED: "terminated",
    EXIT_OUTPUT_CLOSED: "the output cannot be written any more: stopped",
}

# The names of the frameworks' own errors; cuBLAS, cuDNN, XLA and PyTorch's CPU allocator raise a
# RuntimeError or a subclass of it and say it in words.
_MEMORY_ERRORS = ("OutOfMemoryError", "ResourceExhaustedError")
_MEMORY_WORDS = ("RESOURCE_EXHAUSTED", "out of memory", "can't allocate memory", "ALLOC_FAILED")


class NonFiniteError(ValueError):
    """A number of the training became NaN or infinite; the last checkpoint is good."""


class NonFiniteLossError(NonFiniteError):
    """A loss did; no checkpoint of that state or a later one is written."""


class NonFiniteStateError(NonFiniteError):
    """A weight, statistic or moment did; that state is not written."""


class StoppedEarly(KeyboardInterrupt):
    """A run that was asked to stop and has saved itself; the command ends with `exit_code`."""

    def __init__(self, exit_code: int | None, completed: int, options: TrainingOptions) -> None:
        self.exit_code = EXIT_INTERRUPTED if exit_code is None else exit_code
        super().__init__(
            f"{_REASONS[self.exit_code]} after step {completed} of {options.steps}; "
            f"go on with the same options and --resume --out {shlex.quote(printable(options.out))}"
        )


def describe_non_finite(arrays: Mapping[str, np.ndarray]) -> str:
    """Return which numbers are NaN or infinite, or "" if none is.

    >>> describe_non_finite({"kernel": np.array([1.0, np.nan])})
    '1 of the 2 numbers of kernel are NaN or infinite'
    """
    counts = {name: int(np.size(a) - np.isfinite(a).sum()) for name, a in arrays.items()}
    bad = [name for name, count in counts.items() if count]
    if not bad:
        return ""
    first, others = bad[0], len(bad) - 1
    return (
        f"{counts[first]:,} of the {np.size(arrays[first]):,} numbers of {first} are NaN or "
        f"infinite{f' (and some of {others} other arrays)' if others else ''}"
    )


def what_to_try(spec: SystemSpec) -> str:
    """Return what helps against training that diverges."""
    rates = {spec.generator_optimizer.learning_rate, spec.discriminator_optimizer.learning_rate}
    shown = " and ".join(f"{rate:g}" for rate in sorted(rates))
    other = "" if spec.loss == "lsgan" else ", or --loss lsgan"
    return f"start a new run with a lower --learning-rate (it was {shown}){other}"


def is_out_of_memory(error: BaseException) -> bool:
    """Tell by name and text whether an error of any framework means that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    if type(error).__name__ in _MEMORY_ERRORS:
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _MEMORY_WORDS)


def out_of_memory_message(error: BaseException, spec: SystemSpec) -> str:
    """Return what was tried, what to try next and the start of what the framework says."""
    said = " ".join(str(error).split()) or type(error).__name__
    quote = said if len(said) <= MAXIMUM_QUOTE else f"{said[: MAXIMUM_QUOTE - 4]} ..."
    return (
        f"out of memory with --batch-size {spec.batch_size} and --width {spec.width}; "
        f"try a smaller --batch-size or --width ({quote})"
    )


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Give an OSError of writing a file its name, and say what to do about a full disk."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = (
            "make room and go on with --resume"
            if error.errno in FULL_DISK
            else ("see to it and go on with --resume")
        )
        raise OSError(
            f"{printable(os.fspath(path))} cannot be written: {reason}; what was saved before is "
            f"good: {advice}"
        ) from error
