"""The command line: `python -m shared.report --help`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from shared.files.checkpoint import write_file_atomically
from shared.files.errors import one_line, printable
from shared.report.page import make_page
from shared.report.runs import ReportError, read_runs

PROGRAM = "python -m shared.report"
EXIT_BAD_INPUT = 2
SUFFIXES = (".html", ".htm")
DESCRIPTION = """\
Write one HTML page about training runs, side by side: what they are, their samples with a slider
over time, losses, quality of the samples, and all settings with the differences marked.

The page holds everything itself and fetches nothing. Runs that are still going on are shown as far
as they are; call it again for more.
"""
EPILOG = """\
  python -m shared.report runs/jax-dcgan64-bce
  python -m shared.report runs/* --out frameworks.html

Bad input is one line on stderr and exit code 2.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = _Parser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a run: training's --out"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="PAGE",
        help="the page; one that is there is replaced (default: %(default)s)",
    )
    return parser


def _check_out(out: Path) -> None:
    """Raise ReportError unless a page can be written there, before the work is done."""
    shown = printable(out)
    if out.suffix.lower() not in SUFFIXES:
        raise ReportError(f"--out {shown}: expected a name that ends in .html")
    if out.is_dir():
        raise ReportError(f"--out {shown} is a folder; name a page in it, such as report.html")
    if not out.resolve().parent.is_dir():
        raise ReportError(
            f"--out {shown}: there is no folder {printable(out.parent)}; make it or name another"
        )


def run(options: argparse.Namespace) -> None:
    """Do what the command line says."""
    _check_out(options.out)
    runs = read_runs(options.runs)
    words = [*map(printable, options.runs), "--out", printable(options.out)]
    # A path in run.json may hold bytes that are no text.
    page = make_page(runs, f"{PROGRAM} {shlex.join(words)}").encode("utf-8", "backslashreplace")
    write_file_atomically(options.out, page)
    noun = "run" if len(runs) == 1 else "runs"
    print(f"wrote {printable(options.out)}: {len(runs)} {noun}, {len(page) / 1e6:.1f} MB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; bad input is one line on stderr and exit code 2."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        run(options)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {one_line(str(error))}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
