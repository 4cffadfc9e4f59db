"""The command line: `python -m shared.explain --help`."""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from shared.explain.explanation import explain
from shared.explain.port import Port, PortError
from shared.explain.recordings import RecordingReport, explain_recordings, format_report
from shared.explain.report import Explanation, print_stage, render
from shared.files.atomic import require_place
from shared.interface import canonical_name, load_implementation
from shared.reference.adapter import ReferenceImplementation
from shared.run.console import command
from shared.run.options import add_spec_options, chosen_spec
from shared.spec import SystemSpec
from shared.spec.streams import check_seed

DESCRIPTION = """\
Report whether a difference from the NumPy reference is a bug, and which one.

An implementation is compared with it stage by stage from the same weights,
latents and images: forward passes, losses, gradients, batch normalisation's
statistics, Adam, ten steps. If a stage differs, the conventions are looked for
under which the reference reproduces it; what reproduces two further probes is
named. Two recordings of shared.record.Recorder are compared with each other.
"""
EPILOG = """\
Rounding is exit code 0; named, partly named and unexplained 1; bad input 2.

  python -m shared.explain jax
  python -m shared.explain my_package.adapter --system conv28 --json x.json
  python -m shared.explain their_package.adapter --against my_package.adapter
  python -m shared.explain ours.safetensors theirs.safetensors
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "pytorch, tf, jax, a module with an object `implementation`; or two recordings"
    add("implementations", nargs="+", metavar="IMPLEMENTATION", help=text)
    add_spec_options(parser, "dcgan64", batch_size=4)
    text = "float64 unless the implementation refuses it"
    add("--dtype", choices=("float64", "float32"), help=f"(default: {text})")
    add("--seed", type=int, default=0, metavar="S", help="of the probes (default: %(default)s)")
    text = "explain this one as well, and report what is in one of the two alone"
    add("--against", metavar="IMPLEMENTATION", help=text)
    add("--json", type=Path, metavar="FILE", help="write everything there as JSON")


def _spec(options: argparse.Namespace) -> SystemSpec:
    check_seed(options.seed, "--seed")
    if options.batch_size < 2 or options.batch_size % 2:
        raise ValueError(f"--batch-size must be even and at least 2, received {options.batch_size}")
    return chosen_spec(options, lambda n: {"width": 8 if n == "mlp28" else 2, "latent_dim": 6})


def _widest_dtype(implementation: Any, spec: SystemSpec) -> str:
    port = Port(implementation, "float64")
    try:
        if not port.lacking("create"):
            port.call("create", spec, seed=0, dtype="float64")
    except PortError:
        return "float32"
    return "float64"


def _explained(name: str, options: argparse.Namespace, console: Console) -> Explanation:
    """Explain one implementation, and print its stages as they end and then the verdict."""
    # XLA's optimization takes most of the time of networks this small. Before JAX is imported.
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    implementation, spec = load_implementation(name), _spec(options)
    if type(implementation) is ReferenceImplementation:  # whose loss and Adam have no spec
        implementation = ReferenceImplementation(spec.own_conventions(implementation.conventions))
    dtype = options.dtype or _widest_dtype(implementation, spec)
    name = Port(implementation, dtype).name
    console.print(f"{name} against the NumPy reference: {spec.name}, {dtype}", highlight=False)
    report = partial(print_stage, console=console)
    found = explain(implementation, spec, dtype=dtype, seed=options.seed, report=report)
    if found.error and not found.traps:  # else it raises where what is named leads it
        raise ValueError(found.error)
    console.print(render("explanation.j2", e=found), highlight=False)
    return found


def _against(options: argparse.Namespace, console: Console) -> tuple[dict[str, Any], bool]:
    """Explain two implementations; return both as data, and whether nothing is in one alone."""
    names = [*map(canonical_name, (*options.implementations, options.against))]
    both = [_explained(name, options, console) for name in names]
    findings = [{*e.named, *(f"unnamed: {p.stage}, {p.array}" for p in e.located)} for e in both]
    alone = {n: sorted(findings[i] - findings[1 - i]) for i, n in enumerate(names)}
    console.print("\nBetween the two:", highlight=False)
    for name, texts in alone.items():
        console.print(f"in {name} alone: {'; '.join(texts) or 'nothing'}", markup=False)
    data = {"explanations": [e.to_dict() for e in both], "in_one_alone": alone}
    return data, not any(alone.values())


def _work(options: argparse.Namespace) -> int:
    require_place(options.json)
    console = Console(width=None if sys.stdout.isatty() else 80)
    names = options.implementations
    found: Explanation | RecordingReport
    match [name.endswith(".safetensors") for name in names], options.against:
        case [False], None:
            found = _explained(names[0], options, console)
            data, agrees = found.to_dict(), found.agrees
        case [False], _:
            data, agrees = _against(options, console)
        case [True, True], None:
            found = explain_recordings(*map(Path, names))
            console.print(format_report(found), markup=False, highlight=False, soft_wrap=True)
            data, agrees = found.to_dict(), found.agrees
        case _:
            text = "expected one implementation or two recordings, files called *.safetensors"
            raise ValueError(f"{text}; received {' '.join(names)}")
    if options.json is not None:
        options.json.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")
    return 0 if agrees else 1


USAGE = "%(prog)s [options] IMPLEMENTATION [THEIRS]"
TEXTS = {"epilog": EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter}
main = command("python -m shared.explain", DESCRIPTION, _add_options, _work, usage=USAGE, **TEXTS)

if __name__ == "__main__":
    sys.exit(main())
