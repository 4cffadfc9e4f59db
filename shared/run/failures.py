"""What can go wrong while a run trains, and what it reports: one line that says what to do."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from shared.files.errors import printable
from shared.interface import Array

# The names of the frameworks' own errors; cuBLAS, cuDNN, XLA and PyTorch's CPU allocator raise a
# RuntimeError or a subclass of it with these words.
_MEMORY_ERRORS = ("MemoryError", "OutOfMemoryError", "ResourceExhaustedError")
_MEMORY_WORDS = ("RESOURCE_EXHAUSTED", "out of memory", "can't allocate memory", "ALLOC_FAILED")

# By bce, right and on average 99.5 % sure of every image. Measured: dcgan64 of width 16 with
# --learning-rate 2e-4, where it wins (README), is below for 292 of 450 steps; 300 steps of the
# default dcgan64 and the default runs of conv28 and mlp28 never are (0.024, 0.93 and 0.069 at
# the least).
WON_BELOW = 0.01
CLAMP = 100.0  # what bce_probs makes of log(0), docs/losses.md
STEPS_IN_A_ROW = 100

_WON = (
    f"warning: the discriminator has won: its loss was under {WON_BELOW:g} at every step from "
    "{first} to {last}, so the generator learns next to nothing from it; start again without "
    "--learning-rate, whose default suits the width, with a larger --width{other} or more images"
)
_CLAMPED = (
    f"warning: the discriminator is stuck: its loss was at {CLAMP:g}, which stands for log(0), at "
    "every step from {first} to {last}, where it has no slope to learn by; start again with a "
    "lower --learning-rate, or with --loss bce, which has no such ceiling"
)


class NonFiniteError(ValueError):
    """A loss, weight, statistic or moment is NaN or infinite; no checkpoint of it is written."""


def is_out_of_memory(error: BaseException) -> bool:
    """Decide by name and text whether an error of any framework means that memory ran out."""
    if any(kind.__name__ in _MEMORY_ERRORS for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _MEMORY_WORDS)


def describe_non_finite(arrays: Mapping[str, Array]) -> str:
    """Return which numbers are NaN or infinite, or "" if none is."""
    counts = {name: int(np.size(a) - np.isfinite(a).sum()) for name, a in arrays.items()}
    bad = [name for name, count in counts.items() if count]
    if not bad:
        return ""
    others = f" (and some of {len(bad) - 1} other arrays)" if bad[1:] else ""
    part = f"{counts[bad[0]]:,} of the {np.size(arrays[bad[0]]):,} numbers of {bad[0]}"
    return f"{part} are NaN or infinite{others}"


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Give an OSError of writing a file its name, and say how to go on."""
    try:
        yield
    except OSError as error:
        advice = "what was saved before is good: put that right and go on with --resume"
        reason = f"cannot be written: {error.strerror or error}"
        raise OSError(f"{printable(path)} {reason}; {advice}") from error


class DiscriminatorWatch:
    """Counts the steps in a row in which the discriminator's loss is pinned; warns once."""

    def __init__(self, loss: str) -> None:
        self._loss, self._warned, self._won, self._clamped = loss, False, 0, 0

    def see(self, completed: int, values: Mapping[str, float]) -> str | None:
        """Take the METRIC_NAMES of the next step; return a warning when it is time for it."""
        halves = (values["discriminator_loss_real"], values["discriminator_loss_fake"])
        # A mean of a hundred times 100 need not be 100 to the last bit.
        clamped = self._loss == "bce_probs" and max(halves) > 0.999 * CLAMP
        self._won = self._won + 1 if values["discriminator_loss"] < WON_BELOW else 0
        self._clamped = self._clamped + 1 if clamped else 0
        if self._warned or max(self._won, self._clamped) < STEPS_IN_A_ROW:
            return None
        self._warned = True
        text = _WON if self._won >= STEPS_IN_A_ROW else _CLAMPED
        other = "" if self._loss == "lsgan" else ", with --loss lsgan"
        return text.format(first=completed - STEPS_IN_A_ROW + 1, last=completed, other=other)
