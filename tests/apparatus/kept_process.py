"""A process that answers many questions: begun when it is first needed, and anew after it died."""

from typing import Self

from shared.files.child_process import ChildProcess


class KeptProcess:
    """The holder of such a process, which ends with the `with` block."""

    def __init__(self) -> None:
        self._process: ChildProcess | None = None

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.close()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
