"""JSON: the documents that benchmarks/compare.py compares."""

import contextlib
import functools
import io
import json
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import compare
from shared.run.console import EXIT_BAD_INPUT
from tests.apparatus.fuzz.json_mutators import mutated_document
from tests.apparatus.fuzz.places import Files
from tests.apparatus.fuzz.reader import Case, Reader
from tests.benchmarks.documents import make_document


class OneLineError(ValueError):
    """What the command printed on stderr."""


@functools.cache
def _document() -> Any:
    """Return a document of two configurations and two rounds, as run.py writes it."""
    arguments = ["--framework", "pytorch", "jax", "--rounds", "2", "--width", "8"]
    return make_document(arguments, lambda configuration, number: [100.0 + number, 110.0, 120.0])


def mutated_benchmark(draw: Random) -> bytes:
    return mutated_document(draw, _document())[1]


def many_windows(draw: Random) -> bytes:
    """So many windows that two thousand resamples of them would fill the memory."""
    document = json.loads(json.dumps(_document()))
    row = draw.choice(document["rows"])
    row["windows"] = row["windows"][:1] * draw.choice((9_000, 60_000))
    return json.dumps(document).encode()


def many_rows(draw: Random) -> bytes:
    document = json.loads(json.dumps(_document()))
    document["rows"] = document["rows"][:1] * draw.choice((400, 3_000))
    return json.dumps(document).encode()


_BENCHMARK_FILES = Files(
    (".json",),
    lambda: [json.dumps(_document()).encode()],
    (*[mutated_benchmark] * 8, many_windows, many_rows),
    share=0.8,
)


def make_benchmark(draw: Random, folder: Path) -> Case:
    """Write a document and, beside it, the intact one to compare it with."""
    (folder / "intact").mkdir()
    (folder / "intact" / "intact.json").write_text(json.dumps(_document()))
    case = _BENCHMARK_FILES.make(draw, folder)
    # A file that is no damaged one, but of another host or workload, needs no name.
    return Case(case.path, case.label, (*case.names, "--force", "no configuration in common"))


def read_benchmark(path: Path) -> None:
    """Compare with the intact document, in both orders."""
    intact = path.parent / "intact" / "intact.json"
    for pair in ((intact, path), (path, intact), (path, path)):
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = compare.main([*map(str, pair), "--force"])
        if code == EXIT_BAD_INPUT:
            line, rest = errors.getvalue().split("\n", 1)
            assert not rest, "more than one line on stderr"
            raise OneLineError(line)
        assert code in (0, compare.EXIT_REGRESSION)
        assert output.getvalue().replace("\n", "").isprintable()


def read_intact_benchmark() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "intact").mkdir()
        for name in ("intact/intact.json", "a.json"):
            Path(folder, name).write_text(json.dumps(_document()))
        read_benchmark(Path(folder, "a.json"))


BENCHMARK = Reader(
    "benchmark",
    make_benchmark,
    read_benchmark,
    (OneLineError,),
    memory=768 * 2**20,
    prepare=read_intact_benchmark,
)
