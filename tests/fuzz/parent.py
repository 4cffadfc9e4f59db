"""The process that watches: asks a child for inputs, and begins another after a crash or a hang."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.fuzz.reader import FAULT, Outcome, Reader

START_LIMIT = 240.0  # seconds for the imports of a framework on a busy machine
_ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Summary:
    """What became of a reader's inputs."""

    reader: Reader
    counts: dict[str, int] = field(default_factory=dict)
    faults: list[Outcome] = field(default_factory=list)
    peak: int = 0
    slowest: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.counts[outcome.verdict] = self.counts.get(outcome.verdict, 0) + 1
        self.peak = max(self.peak, outcome.peak)
        self.slowest = max(self.slowest, outcome.seconds)
        if outcome.verdict == FAULT:
            self.faults.append(outcome)


def run_reader(
    reader: Reader, seed: int, indices: Iterable[int], report: Callable[[Outcome], None]
) -> Summary:
    """Read every input of these numbers and return what became of them."""
    summary = Summary(reader)
    with Child(reader, seed) as child:
        for index in indices:
            outcome = child.ask(index)
            summary.add(outcome)
            report(outcome)
    return summary


class Child:
    """A child process, begun when it is first asked and again after it died."""

    def __init__(self, reader: Reader, seed: int) -> None:
        self._reader, self._seed = reader, seed
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    def ask(self, index: int) -> Outcome:
        """Return what became of an input; a crash and a hang are faults too."""
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(f"{index}\n".encode())
            process.stdin.flush()
        except BrokenPipeError:
            return self._fault(index, "crash")
        answer = self._answer(process, self._reader.seconds)
        if answer is None:
            return self._fault(index, "crash" if process.poll() is not None else "hang")
        return Outcome(**{**answer, "lines": tuple(answer["lines"])})

    def _start(self) -> subprocess.Popen[bytes]:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        command = [sys.executable, "-m", "tests.fuzz.child", self._reader.name, str(self._seed)]
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"}
        with open(self._folder / "stderr", "wb") as errors:
            self._process = subprocess.Popen(
                [*command, str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=_ROOT,
                env=os.environ | quiet | {"KERAS_BACKEND": "tensorflow"},
            )
        self._unread = b""
        if self._answer(self._process, START_LIMIT) != "ready":
            raise RuntimeError(f"the child of {self._reader.name} did not start: {self._errors()}")
        return self._process

    def _answer(self, process: subprocess.Popen[bytes], seconds: float) -> Any:
        """Return the next line of the child, None where it ended or took too long."""
        assert process.stdout is not None
        while b"\n" not in self._unread:
            ready, _, _ = select.select([process.stdout], [], [], seconds)
            piece = os.read(process.stdout.fileno(), 2**16) if ready else b""
            if not piece:
                # A process that has just ended may not be collected yet.
                if ready:
                    process.wait(seconds)
                return None
            self._unread += piece
        line, self._unread = self._unread.split(b"\n", 1)
        return json.loads(line)

    def _fault(self, index: int, kind: str) -> Outcome:
        assert self._process is not None
        code = self._process.poll()
        self.close()
        found = f"crash, exit code {code}" if kind == "crash" else "hang"
        limit = self._reader.seconds if kind == "hang" else 0.0
        lines = (f"{found} (limit {self._reader.seconds:g} s)", *self._errors().splitlines()[-14:])
        return Outcome(index, FAULT, "", lines, 0, limit, found)

    def _errors(self) -> str:
        return (self._folder / "stderr").read_text("utf-8", "replace")[-3000:]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)
