"""Convert networks between .safetensors (this project's checkpoints), .pth (PyTorch), .weights.h5
(Keras) and .orbax (Flax). Nothing is dropped or made up without a line that names it; DST appears
only after it was read back. Two SRC are joined, such as pytorch/examples' netG_epoch_24.pth and
netD_epoch_24.pth. A run goes on from a .safetensors with a whole training state; from networks
alone, in any of the files, it starts with --init-from.
"""

import argparse
import sys
from contextvars import copy_context
from pathlib import Path

from shared.convert.conversion import describe, fitted, verify, with_choices
from shared.files.atomic import staged
from shared.files.checkpoint import CheckpointError
from shared.files.errors import InputError
from shared.files.system_file import find_system
from shared.formats.file_kinds import joined, kind_of, kind_of_name
from shared.formats.native_contents import ASKED, Contents
from shared.run.console import command, shown_progress, text_table
from shared.spec import LOSS_NAMES, NETWORKS, SYSTEMS


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="*", type=Path, metavar="SRC", help="files to read, then DST, to write")
    add("--inspect", type=Path, metavar="FILE", help="list a file's layers and what they are")
    add("--force", action="store_true", help="replace DST if it exists")
    add("--only", choices=NETWORKS, help="write this network's weights alone")
    text = f"of a SRC that does not store its spec: {', '.join(SYSTEMS)}, or docs/systems.md's file"
    add("--system", metavar="SYSTEM|FILE", help=text)
    add("--loss", choices=LOSS_NAMES, help="of a SRC that does not store its spec")
    add("--debug", action="store_true", help="add the traceback to an error")


def inspect(path: Path) -> int:
    """Print the layers of a file, which system they are, and the next command; 2 if of none."""
    kind = kind_of(path)
    arrays = kind.module().load(path)[0]
    print(f"{path}: {len(arrays)} arrays, as {kind.name} has them")
    sizes = {name: " x ".join(map(str, array.shape)) or "-" for name, array in arrays.items()}
    print(text_table([[f"  {n}", sizes[n], str(a.dtype)] for n, a in arrays.items()], "<"))
    try:
        contents = kind.read(path)
    except CheckpointError:
        print(
            "next: write down its system (docs/systems.md), and hold your code against that: "
            "python -m shared.explain ADAPTER --system FILE.toml"
        )
        raise
    _print_source(path, contents)
    sample = f"python -m shared.sample {path} --grid, " if "generator" in contents.networks else ""
    trained = f"{sample}python -m pytorch_impl.train --init-from {path}"
    is_custom = contents.spec.architecture == "custom"
    print(f"next: {f'python -m shared.convert {path} DST --system FILE' if is_custom else trained}")
    return 0


def convert(arguments: argparse.Namespace) -> int:
    """Do and print what the options ask for; where it raises, DST is as it was before."""
    system = find_system(arguments.system) if arguments.system else None
    ASKED.set(system)
    if arguments.inspect:
        return inspect(arguments.inspect)
    if len(arguments.paths) < 2:
        raise InputError(f"expected SRC [SRC ...] DST, received {len(arguments.paths)} names")
    *paths, destination = arguments.paths
    kind = kind_of_name(destination)
    _require_free(destination, force=arguments.force)
    sources = {}
    with shown_progress("files read", len(paths)) as advance:
        for path in paths:
            sources[path] = kind_of(path).read(path)
            advance(1)
    for path, read in sources.items():
        _print_source(path, read)
    contents = with_choices(joined(sources), system, arguments.loss)
    contents = fitted(contents, kind, arguments.only)
    found: list[str] = []
    shown = shown_progress(f"{destination.name}, written and checked", 1)
    try:
        with shown, staged(destination.absolute()) as temporary:
            kind.write(temporary, contents)
            for line in verify(sources, contents, kind, temporary):
                found.append(line)
    finally:
        for line in found:
            print(line)
    print(f"wrote {destination}: {', '.join(describe(contents))}")
    return 0


def _require_free(destination: Path, *, force: bool) -> None:
    if not destination.absolute().parent.is_dir():
        raise InputError(f"{destination}: there is no folder {destination.absolute().parent}")
    if not destination.exists():
        return
    if not force:
        raise InputError(f"{destination} exists; choose another name or replace it with --force")
    if destination.is_dir() and not (destination / "_CHECKPOINT_METADATA").is_file():
        raise InputError(f"{destination} is a folder that orbax has not made; it is not replaced")


def _print_source(path: Path, contents: Contents) -> None:
    spec = contents.spec
    origin = "stored spec" if contents.spec_is_stored else "spec read off the shapes"
    origin = "spec of --system" if spec.architecture == "custom" else origin
    sizes = f"width {spec.width}, latent_dim {spec.latent_dim}, image_size {spec.image_size}"
    held = f"{', '.join(describe(contents))} in {contents.dtype}, {origin}: {spec.name}"
    print(f"{path}: {held}, {sizes}, channels {spec.channels}, loss {spec.loss}")
    for note in contents.notes:
        print(f"left behind: {note}")


main = command(
    "python -m shared.convert",
    __doc__,
    _add_options,
    lambda options: copy_context().run(convert, options),
)

if __name__ == "__main__":
    sys.exit(main())
