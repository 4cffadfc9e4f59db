"""Convert networks between .safetensors (this project's checkpoints), .pth (PyTorch), .weights.h5
(Keras) and .orbax (Flax). Nothing is dropped or made up without a line that names it; DST appears
only after it was read back. Two SRC are joined, such as pytorch/examples' netG_epoch_24.pth and
netD_epoch_24.pth. A run goes on from a .safetensors with a whole training state; from networks
alone, in any of the files, it starts with --init-from.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path

import numpy as np

from shared.files.atomic import staged
from shared.files.checkpoint import PROGRESS, Contents, spec_differences
from shared.files.errors import InputError
from shared.files.system_file import find_system
from shared.formats.file_kinds import FileKind, joined, kind_of, kind_of_name
from shared.formats.native_contents import ASKED
from shared.interface import Array, Arrays
from shared.run.console import command, shown_progress, text_table, tracked
from shared.spec import LOSS_NAMES, NETWORKS, SYSTEMS, SystemSpec
from shared.spec.state_arrays import cast_floats
from shared.spec.streams import latents, stream


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
    except InputError:
        text = "next: write down its system (docs/systems.md), and hold your code against that:"
        print(f"{text} python -m shared.explain ADAPTER --system FILE.toml")
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
    sources = {path: kind_of(path).read(path) for path in tracked("files read", paths)}
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


# --- the steps; each prints a line for everything that it leaves out or finds --------------------


def with_choices(contents: Contents, chosen: SystemSpec | None, loss: str | None) -> Contents:
    """Return the contents with --system and --loss; a stored spec must be the same."""
    spec = contents.spec
    if chosen:
        fields = "name", "loss", "discriminator_head"
        spec = spec.replace(**{field: getattr(chosen, field) for field in fields})
    spec = spec.replace(loss=loss or spec.loss)
    if contents.spec_is_stored and (differences := spec_differences(contents.spec, spec)):
        raise InputError(f"SRC stores another spec: {'; '.join(differences)}")
    return replace(contents, spec=spec)


def fitted(contents: Contents, kind: FileKind, only: str | None) -> Contents:
    """Return what the kind can carry, and print what it cannot."""
    if kind.implementation is None and contents.spec.architecture == "custom":
        raise InputError("a system of a file has no checkpoints: write a file of a framework")
    carried = (only,) if only else kind.carried
    reason = f"--only {only}" if only else f"{kind.name} has no place for it"
    if left := [name for name in describe(contents) if name.split(" ")[0] not in carried]:
        print(f"left behind: {', '.join(left)} ({reason})")
    arrays = {n: a for n, a in contents.arrays.items() if n.split("/", 1)[0] in carried}
    progress = contents.progress if PROGRESS in carried else {}
    if not arrays:
        raise InputError(f"SRC holds nothing of it to write: {', '.join(contents.parts)}")
    return replace(contents, arrays=arrays, progress=progress)


def describe(contents: Contents) -> list[str]:
    """Return what there is, of EVERYTHING, with the step of the progress."""
    progress = contents.progress
    return [*contents.parts] + ([f"{PROGRESS} (step {progress['step']})"] if progress else [])


# --- verification: do two files hold the same networks, bit by bit and in what they compute? ------

GRID_SIZE = 16

# Of the largest value. Two frameworks' rounding: measured 6e-7 and 2e-15 (test_convert.py).
# A kernel stored in a wrong order: measured 1.4 (turned) and 5 (dense, HWC for CHW).
NETWORK_BOUND = {"float32": 1e-4, "float64": 1e-11}


def verify(
    sources: Mapping[Path, Contents], contents: Contents, kind: FileKind, path: Path
) -> Iterator[str]:
    """Read a file back, run its networks beside those of the sources, and yield both results."""
    written = kind.read(path)
    meant, read = _bits(contents.arrays), _bits(written.arrays)
    if changed := sorted(n for n in meant.keys() | read.keys() if meant.get(n) != read.get(n)):
        raise InputError(f"arrays that changed on the way: {', '.join(changed)}")
    if written.progress != contents.progress:
        raise InputError(f"the progress changed on the way: {written.progress}")
    yield f"arrays: {len(written.arrays)} written and read back, every bit the same"
    if lost := spec_differences(written.spec, contents.spec):
        fields = ", ".join(difference.split(":")[0] for difference in lost)
        yield f"left behind: of the spec {fields} (a network alone keeps what its shapes show)"
    if contents.spec.architecture == "custom":
        yield "networks: not run, because they are yours; hold the port against shared.explain"
        return
    inputs = verification_inputs(contents)
    outputs = kind.run(path, contents, inputs)
    for source, held in sources.items():
        other = kind_of(source)
        expected = other.run(source, replace(held, spec=contents.spec), inputs)
        for network in (name for name in held.networks if name in outputs):
            both = expected[network], outputs[network]
            difference, largest = require_same_outputs(network, *both, contents.dtype)
            yield (
                f"{network}: max difference {difference:.2e} of values up to {largest:.2e} "
                f"({other.name} beside {kind.name}, {GRID_SIZE} inputs)"
            )


def verification_inputs(contents: Contents) -> Arrays:
    """Return 16 latents and 16 NHWC images to compare networks on, in the contents' dtype."""
    spec = contents.spec
    drawn = latents(spec, 0, 0, GRID_SIZE, purpose="sample_grid")
    shape = (GRID_SIZE, *spec.image_shape)
    images = stream(0, "verification_images").uniform(*spec.image_range, shape)
    return cast_floats({"generator": drawn, "discriminator": images}, contents.dtype)


def require_same_outputs(
    network: str, source: Array, destination: Array, dtype: str
) -> tuple[float, float]:
    """Return the largest difference, at most NETWORK_BOUND of the largest output, and that."""
    finite = np.isfinite(source)
    difference = float(np.max(np.abs(source - destination)[finite], initial=0.0))
    largest = float(np.max(np.abs(source[finite]), initial=0.0))
    most = NETWORK_BOUND[dtype] * largest
    if not np.allclose(destination, source, rtol=0.0, atol=most, equal_nan=True):
        found = f"by up to {difference:.2e} of {largest:.2e}"
        expected = f"at most {NETWORK_BOUND[dtype]:.0e} of it, and NaN in the same places"
        raise InputError(f"the {network}s of SRC and DST differ {found}; expected {expected}")
    return difference, largest


def _bits(arrays: Mapping[str, Array]) -> dict[str, object]:
    return {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}


main = command(
    "python -m shared.convert",
    __doc__,
    _add_options,
    lambda options: copy_context().run(convert, options),
)

if __name__ == "__main__":
    sys.exit(main())
