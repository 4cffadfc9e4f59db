"""The command line: `python -m shared.explain --help`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from shared.explain.explanation import explain
from shared.explain.port import Port, PortError
from shared.explain.recordings import RecordingReport, explain_recordings, format_report
from shared.explain.report import Explanation, print_explanation
from shared.files.atomic import require_place
from shared.interface import load_implementation
from shared.run.console import command
from shared.spec import LOSS_NAMES, SYSTEMS, SystemSpec
from shared.spec.streams import check_seed

DESCRIPTION = """\
Say whether an implementation's difference from the NumPy reference is a bug, and which one.

It is compared stage by stage from the same weights, latents and images: forward passes, losses,
gradients, batch normalisation's statistics, Adam, ten steps. If something differs, the conventions
are looked for under which the reference reproduces it: one wrong choice, then several.
Two .safetensors files of shared.record.Recorder are compared with each other instead.
"""
EPILOG = """\
The verdict is one of rounding (exit code 0), known trap or unexplained (1). Exit code 2: bad input.

  python -m shared.explain jax
  python -m shared.explain my_package.adapter --system conv28 --json explanation.json
  python -m shared.explain ours.safetensors theirs.safetensors
"""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "pytorch, tf, jax, a module with an object `implementation`; or two recordings"
    add("implementations", nargs="+", metavar="IMPLEMENTATION", help=text)
    add("--system", choices=SYSTEMS, default="dcgan64", help="networks (default: %(default)s)")
    add("--loss", choices=LOSS_NAMES, help="adversarial loss (default: the system's own)")
    text = "size of the narrowest layer (default: 2, mlp28 8)"
    add("--width", type=int, metavar="W", help=text)
    add("--batch-size", type=int, default=4, metavar="N", help="(default: %(default)s)")
    text = "updates of the discriminator a step (default: the system's)"
    add("--d-steps", type=int, metavar="K", help=text)
    text = "float64 unless the implementation refuses it"
    add("--dtype", choices=("float64", "float32"), help=f"(default: {text})")
    add("--seed", type=int, default=0, metavar="S", help="of the probes (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write everything there as JSON")


def _spec(options: argparse.Namespace) -> SystemSpec:
    system = SYSTEMS[options.system]
    check_seed(options.seed, "--seed")
    if options.batch_size < 2 or options.batch_size % 2:
        raise ValueError(f"--batch-size must be even, received {options.batch_size}")
    return system.replace(
        width=options.width or (8 if system.architecture == "mlp28" else 2),
        latent_dim=6,
        batch_size=options.batch_size,
        loss=options.loss or system.loss,
        discriminator_steps=options.d_steps or system.discriminator_steps,
    )


def _widest_dtype(implementation: Any, spec: SystemSpec) -> str:
    port = Port(implementation, "float64")
    try:
        if not port.lacking("create"):
            port.call("create", spec, seed=0, dtype="float64")
    except PortError:
        return "float32"
    return "float64"


def _work(options: argparse.Namespace) -> int:
    require_place(options.json)
    console = Console(width=None if sys.stdout.isatty() else 140)
    names = options.implementations
    found: Explanation | RecordingReport
    if len(names) == 1 and not names[0].endswith(".safetensors"):
        implementation, spec = load_implementation(names[0]), _spec(options)
        dtype = options.dtype or _widest_dtype(implementation, spec)
        found = explain(implementation, spec, dtype=dtype, seed=options.seed)
        print_explanation(found, console)
    elif len(names) == 2 and all(name.endswith(".safetensors") for name in names):
        found = explain_recordings(*map(Path, names))
        console.print(format_report(found), markup=False, highlight=False, soft_wrap=True)
    else:
        raise ValueError(
            "expected one implementation or two recordings, files called *.safetensors; received "
            f"{' '.join(names)}"
        )
    if options.json is not None:
        options.json.write_text(json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n")
    return 0 if found.agrees else 1


main = command(
    "python -m shared.explain",
    DESCRIPTION,
    _add_options,
    _work,
    epilog=EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
)

if __name__ == "__main__":
    sys.exit(main())
