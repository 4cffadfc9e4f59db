"""Which test executes which line of the kernel, and how long each takes.

A plugin of pytest, `-p tests.apparatus.executed_lines`, in every process of a run and in the
Python processes that tests start. What it sees goes into the folder that EXECUTED_LINES names.
Lines of programs that are traced or cached once per process count for their first test alone.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDERS = ("pytorch_impl", "tf_impl", "jax_impl", "shared/reference", "shared/spec")
VARIABLE = "EXECUTED_LINES"
OUTSIDE = ""
"""In the place of a test's name: what is executed when modules are imported, before any test."""

Lines = dict[str, int]
"""Path of a file → its executed lines as the bits of a number."""


class Recorder:
    """Follows this process, and writes down at its end which lines ran in which test."""

    def __init__(self, test: str = OUTSIDE) -> None:
        self._paths: dict[str, str | None] = {}
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: set[str] = set()
        self._of_tests: dict[str, dict[str, set[int]]] = {}
        self.begin(test)
        threading.settrace(self._enter)
        self._process = os.getpid()
        atexit.register(self.write)

    def begin(self, test: str) -> None:
        """Count what follows for a test."""
        self._current = self._of_tests.setdefault(test, defaultdict(set))
        # Python ends the tracing at an error in it, as where a test lets memory or recursion end.
        sys.settrace(self._enter)

    def _enter(self, frame: FrameType, event: str, _: Any) -> Any:
        file = frame.f_code.co_filename
        path = self._paths.get(file, "")
        if path == "":
            path = self._paths[file] = _kernel_path(file)
        if path is None:
            return None
        self._current[path].add(frame.f_lineno)
        return self._line

    def _line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            path = self._paths[frame.f_code.co_filename]
            assert path is not None
            self._current[path].add(frame.f_lineno)
        return self._line

    def write(self) -> None:
        """Write the file of this process."""
        sys.settrace(None)
        if os.getpid() != self._process:
            return  # A fork of it.
        tests = {
            test: {path: hex(sum(1 << line for line in lines)) for path, lines in found.items()}
            for test, found in self._of_tests.items()
        }
        document = {"tests": tests, "seconds": self.seconds, "failed": sorted(self.failed)}
        # Under its name once it is whole: a process may be killed while it writes.
        part = Path(os.environ[VARIABLE]) / f"{self._process}-{time.time_ns()}.part"
        part.write_text(json.dumps(document), "utf-8")
        part.rename(part.with_suffix(".json"))


def _kernel_path(file: str) -> str | None:
    """Return a file's path in the repository where it is the kernel's, else None."""
    if not file.startswith(f"{ROOT}/"):
        return None
    path = file.removeprefix(f"{ROOT}/")
    return path if path.startswith(tuple(f"{folder}/" for folder in FOLDERS)) else None


_recorder: Recorder | None = None


def follow_child() -> None:
    """Follow a process that a test has started; called by its `sitecustomize`."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
    if test:
        Recorder(test)


def pytest_configure() -> None:
    global _recorder
    _recorder = Recorder()


def pytest_runtest_logstart(nodeid: str) -> None:
    assert _recorder is not None
    _recorder.begin(nodeid)


def pytest_runtest_logfinish() -> None:
    assert _recorder is not None
    _recorder.begin(OUTSIDE)


def pytest_runtest_logreport(report: Any) -> None:
    assert _recorder is not None
    _recorder.seconds[report.nodeid] += report.duration
    if not report.passed:
        _recorder.failed.add(report.nodeid)


@dataclass(frozen=True)
class Executed:
    """What a run of tests has executed: of each test its seconds and its lines."""

    seconds: Mapping[str, float]
    lines: Mapping[str, Lines]

    def tests_of(self, path: str, lines: int) -> list[str]:
        """Return the tests that execute any of a file's lines, the quickest first."""
        found = [t for t, own in self.lines.items() if t and own.get(path, 0) & lines]
        return sorted(found, key=lambda test: (self.seconds.get(test, 0.0), test))

    def tests_in(self, folder: str) -> list[str]:
        """Return the tests that execute anything of a folder."""
        return [t for t, own in self.lines.items() if t and any(p.startswith(folder) for p in own)]


CHILD = f"""import os

if "PYTEST_CURRENT_TEST" in os.environ:
    from {__name__} import follow_child

    follow_child()
"""


def record(copy: Path, folder: Path, tests: Sequence[str] = ("tests",)) -> None:
    """Run the default tier in a copy of the repository; what is executed goes into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="site-") as site:
        (Path(site) / "sitecustomize.py").write_text(CHILD, "utf-8")
        paths = os.pathsep.join((site, str(copy)))
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", __name__]
        environment = os.environ | {VARIABLE: str(folder.resolve()), "PYTHONPATH": paths}
        environment.pop("PYTEST_CURRENT_TEST", None)  # of a test that records: it is no child's
        subprocess.run([*command, *tests], cwd=copy, env=environment, check=False)


def read(folder: Path) -> Executed:
    """Return what the processes of a run wrote; tests that did not pass are left out."""
    seconds: dict[str, float] = defaultdict(float)
    lines: dict[str, Lines] = defaultdict(dict)
    failed: set[str] = set()
    for document in _documents(folder):
        failed |= set(document["failed"])
        for test, duration in document["seconds"].items():
            seconds[test] += duration
        for test, found in document["tests"].items():
            for path, mask in found.items():
                lines[test][path] = lines[test].get(path, 0) | int(mask, 16)
    passed = {test: own for test, own in lines.items() if test == OUTSIDE or test not in failed}
    return Executed(seconds, passed)


def _documents(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("*.json")):
        yield json.loads(file.read_text("utf-8"))
