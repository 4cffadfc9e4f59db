"""Write one HTML page about training runs, side by side: `python -m shared.report runs/*`.

What they are, their samples with a slider over time, losses, quality of the samples, and all
settings with the differences marked. The page holds everything itself and fetches nothing. Runs
that are still going on are shown as far as they are. Bad input is exit code 2.
"""

import argparse
import shlex
import sys
from pathlib import Path

from shared.files.atomic import require_place, write_file_atomically
from shared.files.errors import InputError, printable
from shared.report.runs import read_runs
from shared.run.console import command

PROGRAM = "python -m shared.report"


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run: training's --out")
    help_of_out = "the page; one that is there is replaced (default: %(default)s)"
    add("--out", type=Path, default=Path("report.html"), metavar="PAGE", help=help_of_out)


def _write_report(options: argparse.Namespace) -> None:
    out = options.out
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {out}: expected a name that ends in .html")
    require_place(out)
    runs = read_runs(options.runs)
    from shared.report.page import make_page  # with matplotlib, which --help can spare

    command_line = shlex.join([*PROGRAM.split(), *map(str, options.runs), "--out", str(out)])
    page = make_page(runs, command_line).encode()
    write_file_atomically(out, page)
    noun = "run" if len(runs) == 1 else "runs"
    print(f"wrote {printable(out)}: {len(runs)} {noun}, {len(page) / 1e6:.1f} MB")


main = command(PROGRAM, __doc__, _add_options, _write_report)

if __name__ == "__main__":
    sys.exit(main())
