"""A process that imports the frameworks once and runs tests of a copy many times, each in a fork.

`python -m tests.apparatus.mutant_worker MODULE...` in a copy of the repository imports what it is
told, no backend started; then a line of JSON in, a `Request`; a line out, the tests that failed
and how the fork ended. `Worker` is its parent.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.files.child_process import ChildEndedError, ChildProcess
from tests.apparatus.kept_process import KeptProcess

# The settings come first: they must stand before a framework is imported.
MODULES = ("tests.conftest", "jax", "flax.nnx", "optax", "orbax.checkpoint", "torch")
MODULES += ("tensorflow", "keras", "h5py", "hypothesis", "mpmath", "scipy.stats", "sklearn.svm")
MODULES += ("matplotlib.pyplot", "jinja2", "rich.table", "jsonschema")
GRACE_SECONDS = 120.0  # for the server to begin or to answer, beyond the limit of a request
AT_MOST = 6
"""Tests that fail after which a run may end: more say little of a change."""
OK = "success"
QUIET = ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")
PATIENCE = 2.0
"""Seconds that a run goes on after its first failure."""


@dataclass(frozen=True)
class Request:
    """What is run: pytest's arguments; the order of the tests, if not pytest's; limits."""

    arguments: Sequence[str]
    order: Sequence[str] | None = None
    at_most: int = 0
    seconds: float = 1200.0


class Worker(KeptProcess):
    """The server, begun when it is first asked."""

    def __init__(self, folder: Path, modules: Sequence[str] = MODULES) -> None:
        super().__init__()
        # The copy's packages come before the installed ones.
        self._environment = os.environ | {"PYTHONPATH": str(folder)}
        self._folder, self._modules = folder, modules

    def failures(self, request: Request) -> list[str]:
        """Return the tests that failed, or in their place how pytest ended.

        Raises RuntimeError where the server itself does not answer.
        """
        if self._process is None:
            command = [sys.executable, "-m", "tests.apparatus.mutant_worker", *self._modules]
            with contextlib.chdir(self._folder):
                self._process = ChildProcess(command, self._environment)
        line = json.dumps(asdict(request)).encode() + b"\n"
        try:
            tests, end = json.loads(self._process.ask(line, request.seconds + GRACE_SECONDS))
        except ChildEndedError as error:
            self.close()
            raise RuntimeError(f"the process that runs the tests: {error}") from error
        if not tests and end != OK:
            return [f"pytest ended with {end}"]
        return list(tests)


class Follower:
    """A plugin of pytest that orders the tests, says which begins and fails, and ends early."""

    def __init__(self, request: Request, pipe: int) -> None:
        self._request, self._pipe = request, pipe
        self._failed: set[str] = set()
        self._first = 0.0

    def _say(self, word: str, name: str) -> None:
        os.write(self._pipe, f"{word} {name}\n".encode())

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> None:
        self._session = session
        if self._request.order is not None:
            held = {item.nodeid: item for item in items}
            items[:] = [held[name] for name in self._request.order if name in held]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._say("begins", nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._fails(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._fails(report.nodeid)

    def _fails(self, name: str) -> None:
        if name not in self._failed:
            self._failed.add(name)
            self._first = self._first or time.monotonic()
            self._say("fails", name)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._say("ends", nodeid)
        most = self._request.at_most
        enough = len(self._failed) >= most or time.monotonic() > self._first + PATIENCE
        if most and self._failed and enough:
            self._session.shouldstop = "enough tests have failed"


def forget_repository(root: Path) -> None:
    """Remove every module that came from below `root`: each fork reads its source anew."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name != "__main__" and file and root in Path(file).parents:
            del sys.modules[name]
    importlib.invalidate_caches()


def answer(request: Request) -> tuple[list[str], str]:
    """Run the tests in a fork; return those that failed, or hung, or ended it, and its status."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(reading)
        status = 1
        try:
            arguments = [*request.arguments, *QUIET]
            status = int(pytest.main(arguments, plugins=[Follower(request, writing)]))
        finally:
            os._exit(status)
    os.close(writing)
    deadline, said, end = time.monotonic() + request.seconds, bytearray(), ""
    while not end:
        if select.select([reading], [], [], 0.5)[0]:
            said += os.read(reading, 2**16)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            end = f"status {code}" if code else OK
        elif time.monotonic() > deadline:
            end = f"no answer within {request.seconds:g} s"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not ended:
        os.waitpid(child, 0)
    os.set_blocking(reading, False)
    with contextlib.suppress(BlockingIOError):
        while more := os.read(reading, 2**16):
            said += more
    os.close(reading)
    return _failed(said.decode().splitlines()), end


def _failed(lines: Sequence[str]) -> list[str]:
    """Return what failed, and the test that began and did not end: it took the process with it."""
    found, running = [], ""
    for line in lines:
        word, _, name = line.partition(" ")
        if word == "fails":
            found.append(name)
        running = name if word == "begins" else "" if word == "ends" else running
    return found + ([running] if running and running not in found else [])


def main(modules: Sequence[str]) -> None:
    """Answer until the parent hangs up."""
    # Tests and libraries print; the answers go to what was stdout.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    for name in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    forget_repository(Path.cwd())
    for line in sys.stdin:
        entries: dict[str, Any] = json.loads(line)
        print(json.dumps(answer(Request(**entries))), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
