"""Ctrl-C and SIGTERM while a run trains: the first one is a request, the second one an order."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

EXIT_TERMINATED = 143  # 128 + SIGTERM: of a scheduler, `docker stop`, a shutdown


class StopSignals:
    """Takes both signals from `install` to `restore`; `exit_code` is None until one came.

    SIGTERM is left alone where several processes train (`shared.run.following`), and where
    somebody else has a handler for it already.
    """

    def __init__(self, *, alone: bool) -> None:
        self.exit_code: int | None = None
        self._alone = alone
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        """Begin; does nothing outside the main thread, which alone may install a handler."""
        if threading.current_thread() is not threading.main_thread():
            return
        taken = [signal.SIGINT]
        if self._alone and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            taken.append(signal.SIGTERM)
        self._previous = {number: signal.signal(number, self._on_signal) for number in taken}

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        self.exit_code = 128 + number
        self.restore()  # a second one stops at once
        # Not print: it could be what was interrupted, and it may not be entered twice.
        again = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        try:
            os.write(2, f"\nstopping after this step; {again} again stops at once\n".encode())
        except OSError:
            return  # nobody reads it, which is no reason to lose the step
