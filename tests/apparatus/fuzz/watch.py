"""Whether reading a file ran something: an audit hook of Python, and a file that a payload makes.

A hook cannot be taken out again, so it is installed once in the fuzzer's child process and only
listens between `start` and `stop`.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

# What code out of a file would do first. "open" is not among them: readers open files.
_EVENTS = (
    *("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.kill", "pty.spawn"),
    *("subprocess.Popen", "socket.connect", "socket.bind", "ctypes.dlopen", "webbrowser.open"),
    *("os.remove", "os.rmdir", "os.rename", "shutil.rmtree", "shutil.move", "urllib.Request"),
)
CANARY = "GAN_FUZZ_CANARY"
"""The environment variable with the path that the payloads of `pickles` make."""


class Watch:
    """Listens for what only code from a file would do."""

    def __init__(self, folder: Path) -> None:
        self._canary = folder / "canary"
        self._seen: list[str] = []
        self._listens = False
        os.environ[CANARY] = str(self._canary)
        sys.addaudithook(self._hear)

    def start(self) -> None:
        """Forget what was heard and listen."""
        self._seen.clear()
        self._listens = True

    def stop(self) -> list[str]:
        """Return what was run since `start`."""
        self._listens = False
        if self._canary.exists():
            self._canary.unlink()
            self._seen.append("a payload of the file")
        return list(self._seen)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        # Libraries clean up temporary folders of their own.
        is_own = str(arguments[:1]).startswith(f"('{tempfile.gettempdir()}/tmp")
        if self._listens and event in _EVENTS and not is_own:
            self._seen.append(f"{event}{arguments!r:.200}")
