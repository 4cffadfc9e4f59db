"""The process that watches: asks a child for inputs, and begins another after a crash or a hang."""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from shared.files.child_process import ChildEndedError, ChildProcess, ChildTimeoutError
from tests import ROOT
from tests.apparatus.fuzz.reader import FAULT, Outcome, Reader
from tests.apparatus.kept_process import KeptProcess

START_LIMIT = 240.0  # seconds for the imports of a framework on a busy machine


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


class Child(KeptProcess):
    """A process in which one reader reads."""

    def __init__(self, reader: Reader, seed: int) -> None:
        super().__init__()
        self._reader, self._seed = reader, seed
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-"))

    def ask(self, index: int) -> Outcome:
        """Return what became of an input; a crash and a hang are faults too."""
        process = self._process or self._start()
        try:
            answer = json.loads(process.ask(f"{index}\n".encode(), self._reader.seconds))
        except ChildTimeoutError:
            return self._fault(index, "hang", self._reader.seconds)
        except ChildEndedError:
            return self._fault(index, f"crash, exit code {process.exit_status}", 0.0)
        return Outcome(**{**answer, "lines": tuple(answer["lines"])})

    def _start(self) -> ChildProcess:
        shutil.rmtree(self._folder, ignore_errors=True)
        inputs, own = self._folder / "inputs", self._folder / "own"  # which a kill leaves behind
        for folder in (inputs, own):
            folder.mkdir(parents=True)
        command = [
            sys.executable,
            "-m",
            "tests.apparatus.fuzz.child",
            self._reader.name,
            str(self._seed),
        ]
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"}
        environment = os.environ | quiet | {"KERAS_BACKEND": "tensorflow", "TMPDIR": str(own)}
        with contextlib.chdir(ROOT):
            self._process = process = ChildProcess([*command, str(inputs)], environment)
        try:
            process.ask(b"", START_LIMIT)  # "ready"
        except ChildEndedError as error:
            name, shown = self._reader.name, process.errors()[-3000:]
            raise RuntimeError(f"the child of {name} did not start: {error}: {shown}") from error
        return process

    def _fault(self, index: int, found: str, seconds: float) -> Outcome:
        assert self._process is not None
        shown = self._process.errors()[-3000:].splitlines()[-14:]
        self.close()
        lines = (f"{found} (limit {self._reader.seconds:g} s)", *shown)
        return Outcome(index, FAULT, "", lines, 0, seconds, found)

    def __exit__(self, *failure: object) -> None:
        super().__exit__(*failure)
        shutil.rmtree(self._folder, ignore_errors=True)
