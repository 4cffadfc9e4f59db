"""What several studies share: their command, a text table, a check of a file, the CPU."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from shared.run.console import run_command


def study_command(
    name: str,
    description: str | None,
    add_options: Callable[[argparse.ArgumentParser], object],
    run: Callable[[argparse.Namespace], int | None],
) -> Callable[..., int]:
    """Return the `main` of `python -m shared.NAME`; bad input is one line and exit code 2."""

    def main(arguments: Sequence[str] | None = None) -> int:
        parser = argparse.ArgumentParser(
            prog=f"python -m shared.{name}", description=description, allow_abbrev=False
        )
        add_options(parser)
        options = parser.parse_args(arguments)
        return run_command(parser.prog, lambda: run(options))

    return main


def text_table(rows: Sequence[Sequence[str]], alignment: str) -> str:
    """Return rows as text; `alignment` holds < or > for each column, its last one for the rest."""
    columns = list(zip(*rows, strict=True))
    sides = alignment.ljust(len(columns), alignment[-1])
    formats = [f"{s}{max(map(len, column))}" for s, column in zip(sides, columns, strict=True)]
    return "\n".join("  ".join(map(format, row, formats)).rstrip() for row in rows)


def check_file(path: Path | None) -> None:
    """Raise ValueError unless a file can be written at `path`, before the work is done."""
    if path and path.is_dir():
        raise ValueError(f"{path} is a folder; expected a file: name one in it")
    if path and not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist; make it, or name another file")


def use_cpu() -> None:
    """Keep every framework on the CPU; only before the first of them is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    os.environ["JAX_PLATFORMS"] = "cpu"
