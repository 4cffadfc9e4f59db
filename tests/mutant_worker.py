"""A process that runs tests many times and imports a framework only once.

`python -m tests.mutant_worker` in a copy of the repository: a line of JSON in, the arguments of
pytest; a line out, what `FirstFailure` saw and pytest's exit status. `Worker` is its parent.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import pytest

from shared.files.child_process import ChildEndedError, ChildProcess

TIME_LIMIT = 1800.0
"""Seconds for all tests of one framework on a busy machine."""


class Worker:
    """The process, begun when it is first asked, and again after it died.

    `settings` are environment variables for it alone.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        # The copy's packages come before the installed ones.
        self._environment = os.environ | {"PYTHONPATH": str(folder)} | dict(settings or {})
        self._process: ChildProcess | None = None

    def first_failure(self, arguments: Sequence[str]) -> str:
        """Return the first test that failed, "" if all passed; RuntimeError for no answer."""
        if self._process is None:
            command = [sys.executable, "-m", "tests.mutant_worker"]
            self._process = ChildProcess(
                command, environment=self._environment, folder=self._folder
            )
        request = json.dumps(list(arguments)).encode() + b"\n"
        try:
            test, status = json.loads(self._process.ask(request, TIME_LIMIT))
        except ChildEndedError as error:
            self.close()
            raise RuntimeError(f"{error}: pytest {shlex.join(arguments)}") from error
        if not test and status != pytest.ExitCode.OK:
            raise RuntimeError(
                f"pytest {shlex.join(arguments)} failed no test and has status {status}; expected 0"
            )
        return test

    def require_passing(self, tests: Sequence[str]) -> None:
        """Raise RuntimeError for a test that fails; it is not the fault's doing, then."""
        failed = self.first_failure(["-x", "-q", "-p", "no:cacheprovider", *tests]) if tests else ""
        if failed:
            raise RuntimeError(f"{failed} fails without a fault; fix it first")

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


class FirstFailure:
    """A plugin of pytest: the first test that failed, or file that could not be collected."""

    def __init__(self) -> None:
        self.test = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.test = self.test or report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.test = self.test or report.nodeid


def forget_repository(root: Path) -> None:
    """Remove every module that came from below `root`: its source may be another the next time."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name != "__main__" and file and root in Path(file).parents:
            del sys.modules[name]
    importlib.invalidate_caches()
    gc.collect()


def main() -> None:
    """Answer until the parent hangs up."""
    # Tests and libraries print; the answers go to what was stdout.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    for line in sys.stdin:
        seen = FirstFailure()
        status = pytest.main(json.loads(line), plugins=[seen])
        forget_repository(Path.cwd())
        print(json.dumps([seen.test, int(status)]), file=answers, flush=True)


if __name__ == "__main__":
    main()
