"""A process that runs tests many times and imports a framework only once.

`python -m tests.apparatus.mutant_worker` in a copy of the repository: a line of JSON in, the
arguments of pytest; a line out, what `Failures` saw and pytest's exit status. `Worker` is its
parent.
"""

import gc
import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from shared.files.child_process import ChildEndedError, ChildProcess
from tests.apparatus.kept_process import KeptProcess

TIME_LIMIT = 1200.0
"""Seconds for the whole suite of one framework on a busy machine; a change may never end."""


class Worker(KeptProcess):
    """The process, begun when it is first asked, and again after it died.

    `settings` are environment variables for it alone.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._folder = folder
        # The copy's packages come before the installed ones.
        self._environment = os.environ | {"PYTHONPATH": str(folder)} | dict(settings or {})

    def failures(self, arguments: Sequence[str]) -> list[str]:
        """Return the tests that failed, or in their place how the process or pytest ended."""
        if self._process is None:
            command = [sys.executable, "-m", "tests.apparatus.mutant_worker"]
            self._process = ChildProcess(
                command, environment=self._environment, folder=self._folder
            )
        request = json.dumps(list(arguments)).encode() + b"\n"
        try:
            tests, status = json.loads(self._process.ask(request, TIME_LIMIT))
        except ChildEndedError as error:
            self.close()
            return [str(error)]
        if not tests and status != pytest.ExitCode.OK:
            return [f"pytest ended with status {status}"]
        return list(tests)

    def require_passing(self, arguments: Sequence[str]) -> None:
        """Raise RuntimeError for a test that fails; it is not a change's doing, then."""
        failed = self.failures(arguments) if arguments else []
        if failed:
            raise RuntimeError(f"{', '.join(failed)}: not passed without a change; fix it first")


class Failures:
    """A plugin of pytest: the tests that failed, and files that could not be collected."""

    def __init__(self) -> None:
        self.tests: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self.tests:
            self.tests.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.tests.append(report.nodeid)


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
        seen = Failures()
        status = pytest.main(json.loads(line), plugins=[seen])
        forget_repository(Path.cwd())
        print(json.dumps([seen.tests, int(status)]), file=answers, flush=True)


if __name__ == "__main__":
    main()
