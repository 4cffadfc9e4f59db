"""JSON: the fixture of losses, and the documents that benchmarks/compare.py compares."""

import contextlib
import functools
import io
import json
import math
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import compare
from shared.fixtures.load import LOSSES_FILE, FixtureError, load_loss_cases
from shared.run.console import EXIT_BAD_INPUT
from tests.apparatus.fuzz.json_mutators import mutated_document
from tests.apparatus.fuzz.places import Files
from tests.apparatus.fuzz.reader import Case, Reader
from tests.benchmarks.documents import make_document


@functools.cache
def _losses() -> Any:
    """Return the fixture's document with three of its cases, one of them with divergences."""
    document = json.loads(LOSSES_FILE.read_text("utf-8"))
    divergent = next(case for case in document["cases"] if case["divergences"])
    return {**document, "cases": [*document["cases"][:2], divergent]}


def mutated_losses(draw: Random) -> bytes:
    return mutated_document(draw, _losses())[1]


def huge_numbers(draw: Random) -> bytes:
    """Numbers in a few letters that would take hours to write out."""
    document = json.loads(json.dumps(_losses()))
    case = draw.choice(document["cases"])
    number = draw.choice((case["real_scores"], case["expected"]["generator"]))[0]
    number[draw.choice(("decimal", "bits", "special"))] = draw.choice(
        (
            "1e999999999",
            "1e-999999999",
            "1/0",
            "0x1p+999999999",
            "9" * 6000,
            "1_000",
            " 1",
            "١",
            "inf",
        )
    )
    return json.dumps(document).encode()


_LOSS_FILES = Files(
    (".json",),
    lambda: [json.dumps(_losses()).encode()],
    (mutated_losses, mutated_losses, huge_numbers),
    share=0.8,
)


def read_losses(path: Path) -> None:
    for case in load_loss_cases(path):
        assert case.real_scores.dtype == case.fake_scores.dtype == float
        assert len(case.expected["generator_fake_gradient"]) == len(case.fake_scores)
        assert not any(math.isfinite(number) for number, _ in case.declared("generator").values())
        assert isinstance(case.id, str)


LOSSES = Reader(
    "losses",
    _LOSS_FILES.make,
    read_losses,
    (FixtureError,),
    prepare=_LOSS_FILES.prepared(read_losses),
)


# --- documents of the benchmark --------------------------------------------------------------


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
