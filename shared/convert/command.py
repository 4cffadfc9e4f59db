"""`python -m shared.convert SRC [SRC …] DST`: networks from one framework's file to another's.

Nothing is dropped or made up without a line that says so, and DST appears only after it was read
back, every bit compared, and its networks run beside those of SRC.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from shared.convert.conversion import fitted, joined, with_choices, with_fresh
from shared.convert.file_kinds import FILE_KINDS, FileKind, kind_of, load_format
from shared.convert.native_contents import NativeContents
from shared.convert.verification import (
    VerificationError,
    require_same_arrays,
    require_same_outputs,
    verification_inputs,
)
from shared.files.atomic import staged
from shared.files.checkpoint import spec_differences
from shared.interface import MissingFrameworkError
from shared.spec import LOSS_NAMES, NETWORKS, SYSTEMS
from shared.spec.streams import MAXIMUM_SEED

EXIT_BAD_INPUT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Bad input, a missing framework and an unwilling disk become one line on stderr and exit code
    2; `--debug` adds the traceback. Anything else is a mistake of ours and passes through.
    """
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        convert(arguments)
    except (ValueError, OSError, MissingFrameworkError) as error:
        if arguments.debug:
            traceback.print_exc()
        print(f"{parser.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m shared.convert",
        description="Convert networks between .safetensors (this project's checkpoints), .pth "
        "(PyTorch), .weights.h5 (Keras) and .orbax (Flax).",
        epilog="Two SRC are joined, such as pytorch/examples' netG_epoch_24.pth and "
        "netD_epoch_24.pth. A .safetensors holds a whole training state; from files without "
        "Adam's moments it is made with --fresh-optimizers.",
        allow_abbrev=False,
    )
    _add_files(parser)
    _add_what_is_missing(parser)
    parser.add_argument("--debug", action="store_true", help="add the traceback to an error")
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", type=Path, metavar="SRC", help="file to read")
    parser.add_argument("destination", type=Path, metavar="DST", help="file to write")
    parser.add_argument(
        "--to", choices=FILE_KINDS, help="kind of DST (default: what its name says)"
    )
    parser.add_argument("--force", action="store_true", help="replace DST if it exists")
    parser.add_argument("--only", choices=NETWORKS, help="write this network's weights alone")


def _add_what_is_missing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--system", choices=SYSTEMS, help="of a SRC that does not store its spec")
    parser.add_argument("--loss", choices=LOSS_NAMES, help="of a SRC that does not store its spec")
    parser.add_argument(
        "--fresh-optimizers",
        action="store_true",
        help="start both Adams at zero where SRC has none; the run then starts at step 0",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="S",
        help="of the run that goes on from a SRC without progress, whose step is then Adam's",
    )


def convert(arguments: argparse.Namespace) -> None:
    """Do what the parsed options ask for, and print every step of it.

    Raises ValueError, OSError or MissingFrameworkError; DST is then as it was before.
    """
    destination: Path = arguments.destination
    kind = FILE_KINDS[arguments.to] if arguments.to else kind_of(destination)
    _require_free(destination, kind, force=arguments.force)
    if arguments.seed is not None and not 0 <= arguments.seed <= MAXIMUM_SEED:
        raise ValueError(f"--seed must be from 0 to {MAXIMUM_SEED}, received {arguments.seed}")
    sources = {path: load_format(kind_of(path)).read(path) for path in arguments.sources}
    for path, contents in sources.items():
        print(f"{path}: {_held(contents)} in {contents.dtype}, {_spec_text(contents)}")
        for note in contents.notes:
            print(f"left behind: {note}")
    contents = with_choices(joined(sources), arguments.system, arguments.loss)
    contents = with_fresh(contents, arguments.fresh_optimizers, arguments.seed)
    contents = fitted(contents, kind, arguments.only)
    with staged(destination.absolute()) as temporary:
        load_format(kind).write(temporary, contents)
        _verify(sources, contents, kind, temporary)
    print(f"wrote {destination}: {_held(contents)}")


def _require_free(destination: Path, kind: FileKind, *, force: bool) -> None:
    others = [k for k in FILE_KINDS.values() if k != kind and destination.name.endswith(k.suffixes)]
    # A folder of orbax may have any name but another kind's.
    if others or (kind.name != "orbax" and not destination.name.endswith(kind.suffixes)):
        endings = " or ".join(kind.suffixes)
        raise ValueError(f"{destination}: the name of a {kind.name} file ends in {endings}")
    if not destination.absolute().parent.is_dir():
        raise ValueError(f"{destination}: there is no folder {destination.absolute().parent}")
    if not destination.exists():
        return
    if not force:
        raise ValueError(f"{destination} exists; choose another name or replace it with --force")
    if destination.is_dir() and not (destination / "_CHECKPOINT_METADATA").is_file():
        raise ValueError(f"{destination} is a folder that orbax has not made; it is not replaced")


# --- verification ----------------------------------------------------------------------------


def _verify(
    sources: dict[Path, NativeContents], contents: NativeContents, kind: FileKind, path: Path
) -> None:
    written = load_format(kind).read(path)
    require_same_arrays(contents.arrays, written.arrays)
    if written.progress != contents.progress:
        raise VerificationError(f"the progress changed on the way: {written.progress}")
    print(f"arrays: {len(written.arrays)} written and read back, every bit the same")
    if lost := spec_differences(written.spec, contents.spec):
        fields = ", ".join(difference.split(":")[0] for difference in lost)
        print(f"left behind: of the spec {fields} (a network alone keeps what its shapes say)")
    inputs = verification_inputs(contents)
    outputs = load_format(kind).run(path, contents, *inputs)
    for source, held in sources.items():
        networks = [network for network in held.networks if network in outputs]
        expected = load_format(kind_of(source)).run(
            source, replace(held, spec=contents.spec), *inputs
        )
        for network in networks:
            difference, largest = require_same_outputs(
                network, expected[network], outputs[network], contents.dtype
            )
            print(
                f"{network}: max difference {difference:.2e} of values up to {largest:.2e} "
                f"({kind_of(source).name} beside {kind.name}, {len(inputs[0])} inputs)"
            )


def _held(contents: NativeContents) -> str:
    step = [f"progress (step {contents.progress['step']})"] if contents.progress else []
    return ", ".join([*contents.parts, *step])


def _spec_text(contents: NativeContents) -> str:
    spec = contents.spec
    origin = "stored spec" if contents.spec_is_stored else "spec read off the shapes"
    return (
        f"{origin}: {spec.name}, width {spec.width}, latent_dim {spec.latent_dim}, "
        f"channels {spec.channels}, loss {spec.loss}"
    )
