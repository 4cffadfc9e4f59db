"""Every case against an implementation, in any language: `python -m shared.conformance`.

The exit code is 0 where nothing failed, 1 where a case failed, was errored or passed although it
is declared to diverge, or where no case was run, and 2 for bad input.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from threadpoolctl import threadpool_limits

from shared.conformance import verdicts
from shared.conformance.cases import Problem, cases_of, load_overrides, selected
from shared.conformance.problems import all_problems, problems_of
from shared.conformance.protocol import ChildSession, serve_command
from shared.conformance.verdicts import decide, is_conformant, print_summary
from shared.files.atomic import require_place
from shared.files.errors import InputError
from shared.run.console import command, positive, tracked
from shared.run.options import add_spec_options, chosen_spec

TIME_LIMIT = 120.0  # seconds; a framework's import and first compilation take a tenth of it


def _add_options(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    named = "pytorch, tf, jax, or the dotted path of a module with an object 'implementation'"
    program = "a program that speaks the protocol, such as 'node docs/examples/losses.js'"
    what.add_argument("implementation", nargs="?", metavar="IMPLEMENTATION", help=named)
    what.add_argument("--impl", metavar="IMPLEMENTATION", help="the same as an option")
    what.add_argument("--command", metavar="COMMAND", help=program)
    what.add_argument("--list", action="store_true", help="print every case with its bound")
    add = parser.add_argument
    select = "only cases whose id matches, such as 'loss/*/float64/*'; may be repeated"
    add("--select", action="append", default=[], metavar="PATTERN", help=select)
    add("--overrides", type=Path, metavar="FILE", help="declared divergences and other bounds")
    add("--json", type=Path, metavar="FILE", help="write every case as JSON")
    add("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    add_spec_options(parser, None, batch_size=7)
    limit = "for the start and for each request (default: %(default)g)"
    add("--time-limit", type=positive, default=TIME_LIMIT, metavar="SECONDS", help=limit)


def _problems(options: argparse.Namespace) -> Sequence[Problem]:
    """Return every problem, or those of the one system that was chosen."""
    fields = "loss image_size channels width latent_dim d_steps generator_batch learning_rate"
    if options.system is None:
        if given := [f for f in fields.split() if getattr(options, f) is not None]:
            raise InputError(f"--{given[0].replace('_', '-')} is one system's: add --system")
        return all_problems()
    return problems_of(chosen_spec(options, lambda _: {"width": 4, "latent_dim": 10}))


@threadpool_limits.wrap(limits=1, user_api="blas")  # small matrices: threads wait for each other
def _run(options: argparse.Namespace) -> int:
    require_place(options.json, options.junit)
    problems = _problems(options)
    identifiers = [case.id for case in cases_of(problems)]
    overrides = load_overrides(options.overrides, identifiers) if options.overrides else {}
    if options.select:
        problems = selected(problems, options.select)
    if options.list:
        for case in cases_of(problems):
            print(f"{case.id}  {case.bound.limit:g} {case.bound.unit}")
        return 0
    named = options.implementation or options.impl
    words = serve_command(named) if named else shlex.split(options.command)
    if not words:
        raise InputError("--command is empty; expected a program and its arguments")
    with ChildSession(words, options.time_limit) as session:
        name, what = session.name, f"problems of {named or words[0]}"
        results = decide(tracked(what, problems), session, overrides)
    print_summary(name, results, Console())
    if options.json:
        verdicts.write_json(options.json, name, results)
    if options.junit:
        verdicts.write_junit(options.junit, name, results)
    return 0 if is_conformant(results) else 1


USAGE = "%(prog)s [options] [IMPLEMENTATION]"
main = command("python -m shared.conformance", __doc__, _add_options, _run, usage=USAGE)

if __name__ == "__main__":
    sys.exit(main())
