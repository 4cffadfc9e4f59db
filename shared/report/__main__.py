"""The command line: `python -m shared.report --help`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from shared.files.atomic import write_file_atomically
from shared.files.errors import printable
from shared.report.runs import ReportError, read_runs
from shared.run.console import OneLineParser, run_command

PROGRAM = "python -m shared.report"
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


def _check_out(out: Path) -> None:
    """Raise ReportError unless a page can be written there, before the work is done."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise ReportError(f"--out {out}: expected a name that ends in .html")
    if out.is_dir():
        raise ReportError(f"--out {out} is a folder; name a page in it, such as report.html")
    if not out.resolve().parent.is_dir():
        raise ReportError(f"--out {out}: there is no folder {out.parent}; make it or name another")


def _write_report(paths: Sequence[Path], out: Path) -> None:
    _check_out(out)
    runs = read_runs(paths)
    from shared.report.page import make_page  # with matplotlib, which --help can spare

    command = shlex.join([*PROGRAM.split(), *map(str, paths), "--out", str(out)])
    page = make_page(runs, command).encode()
    write_file_atomically(out, page)
    noun = "run" if len(runs) == 1 else "runs"
    print(f"wrote {printable(out)}: {len(runs)} {noun}, {len(page) / 1e6:.1f} MB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; bad input is one line on stderr and exit code 2."""
    parser = OneLineParser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run: training's --out")
    help_of_out = "the page; one that is there is replaced (default: %(default)s)"
    add("--out", type=Path, default=Path("report.html"), metavar="PAGE", help=help_of_out)
    options = parser.parse_args(arguments)
    return run_command(PROGRAM, lambda: _write_report(options.runs, options.out))


if __name__ == "__main__":
    sys.exit(main())
