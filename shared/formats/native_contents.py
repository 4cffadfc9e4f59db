"""What a framework's file holds: parts of a state, of a spec that may be read off the shapes."""

import statistics
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from shared.files.checkpoint import (
    EVERYTHING,
    OPTIMIZERS,
    Contents,
    check_dtypes,
    check_shapes,
    decode_description,
    parts_of,
)
from shared.files.errors import InputError
from shared.interface import Array, Shapes
from shared.spec import NETWORKS, SYSTEMS, SystemSpec, state_shapes
from shared.spec.architectures import IMAGE_SIZES

HELD = "what it holds"
DESCRIPTION_FIELDS = ("format", "format_version", "spec", "progress")
"""The texts of `encode_description`, which a format keeps beside the arrays if it can."""

NamesOf = Callable[[SystemSpec], Mapping[str, str]]
"""A format's names: a spec's canonical names by the format's own."""
Shape = tuple[int, ...]


def canonical_names(spec: SystemSpec) -> dict[str, str]:
    """Return the names of a format that has no others than the canonical ones."""
    return {name: name for name in state_shapes(spec)}


def part_shapes(spec: SystemSpec, parts: Collection[str]) -> dict[str, Shape]:
    """Return name and shape of every array of some parts, in canonical order."""
    shapes = state_shapes(spec)
    return {name: shape for name, shape in shapes.items() if name.split("/", 1)[0] in parts}


def check_contents(path: Path, contents: Contents, carried: Collection[str] = EVERYTHING) -> None:
    """Raise InputError unless a format with a place for `carried` can write all of this."""
    if excess := [part for part in contents.held if part not in carried]:
        raise InputError(f"{path}: this format cannot carry {', '.join(excess)}")
    _check_parts(path, contents.parts)
    check_shapes(path, contents.arrays, part_shapes(contents.spec, contents.parts), HELD)
    check_dtypes(path, contents.arrays)


def require_unpacked(path: Path, declared: int, *files: Path) -> None:
    """Raise InputError for more bytes than the files have: a packed one may be gigabytes."""
    if declared > (size := sum(file.stat().st_size for file in files or [path])):
        found = f"{declared:,} bytes declared in a file of {size:,}"
        expected = "arrays as they are saved, unpacked"
        raise InputError(f"{path}: expected {expected}; found {found}")


def assemble(
    path: Path,
    found: Mapping[str, Array],
    description: Mapping[str, Any],
    names_of: NamesOf,
    *,
    axes: Mapping[int, Shape] = MappingProxyType({}),
    swapped: Callable[[SystemSpec], Collection[str]] = lambda _: (),
) -> Contents:
    """Return what a file holds, by canonical name; its arrays stay in the file's own layout.

    `found`: arrays by the file's own names, one network alone without its name in front. `axes`: by
    number of axes, the order that makes an array canonical. `swapped`: kernels whose last two axes
    are exchanged. A spec that `description` does not hold is ASKED, or read off the names and
    shapes. Raises InputError, naming the file, for every array too much, missing or misshapen.
    """
    texts = {name: str(description[name]) for name in DESCRIPTION_FIELDS if name in description}
    stored_spec, progress = decode_description(path, texts) if texts else (None, {})
    shapes = {n: tuple(a.shape[i] for i in _order(axes, a.ndim)) for n, a in found.items()}
    spec, prefix = infer_spec(shapes, names_of, stored_spec)
    found = {f"{prefix}{name}": array for name, array in found.items()}
    parts = parts_of(found)
    # Shapes alone: what a stored spec declares may be larger than the memory.
    expected, exchanged = part_shapes(spec, parts), swapped(spec)
    expected = {n: (*s[:2], s[3], s[2]) if n in exchanged else s for n, s in expected.items()}
    names = {name: native for native, name in names_of(spec).items() if name in expected}
    native_shapes = {
        names[name]: tuple(shape[i] for i in np.argsort(_order(axes, len(shape))))
        for name, shape in expected.items()
    }
    near = f"nearest to {spec.name} of width {spec.width}"
    near = "by the names of --system's file" if spec.architecture == "custom" else near
    nearest = "" if stored_spec else f", {near},"
    check_shapes(path, found, native_shapes, f"{HELD}{nearest}")
    _check_parts(path, parts)
    arrays = {name: found[names[name]] for name in expected}
    check_dtypes(path, arrays)
    return Contents(arrays, spec, progress, stored_spec is not None)


def _order(axes: Mapping[int, Shape], count: int) -> Shape:
    return axes.get(count, tuple(range(count)))


def _check_parts(path: Path, parts: Collection[str]) -> None:
    if not any(network in parts for network in NETWORKS):
        raise InputError(f"{path}: expected weights of a generator or discriminator")
    if alone := [o for o in OPTIMIZERS if o in parts and o.removesuffix("_optimizer") not in parts]:
        raise InputError(f"{path}: {', '.join(alone)} without the network that it belongs to")


# --- which system it is ----------------------------------------------------------------------


ASKED: ContextVar[SystemSpec | None] = ContextVar("ASKED", default=None)
"""The system whose networks are read; None for ours, whichever it may be."""


def systems_of_every_size() -> list[SystemSpec]:
    """Return every system with each size of image that it can have, its own size first."""
    own = [asked] if (asked := ASKED.get()) else list(SYSTEMS.values())
    sizes = ((system, size) for system in own for size in IMAGE_SIZES.get(system.architecture, ()))
    return own + [s.replace(image_size=size) for s, size in sizes if size != s.image_size]


def infer_spec(
    shapes: Shapes, names_of: NamesOf, stored: SystemSpec | None = None
) -> tuple[SystemSpec, str]:
    """Return the system that canonical shapes, by a file's names, fit best, and its sizes.

    With what is missing before the names of one bare network's arrays, which need not tell whose
    they are: both networks of mlp28 have dense_1 to dense_3.
    """
    fits = []
    for prefix in [""] if parts_of(shapes) else [f"{network}/" for network in NETWORKS]:
        named = {f"{prefix}{name}": shape for name, shape in shapes.items()}
        for spec in [stored] if stored else systems_of_every_size():
            sized = stored or _with_sizes(spec, named, names_of(spec))
            # A part that is absent tells nothing about the system.
            expected = part_shapes(sized, parts_of(named))
            places = {n: expected[name] for n, name in names_of(sized).items() if name in expected}
            unfilled = [native for native, shape in places.items() if named.get(native) != shape]
            fits.append((len(named.keys() - places.keys()), len(unfilled), sized, prefix))
    # In this order: a file that lost much would otherwise be nearest to the smallest system.
    return min(fits, key=lambda fit: fit[:2])[2:]


def _with_sizes(spec: SystemSpec, found: Shapes, names: Mapping[str, str]) -> SystemSpec:
    """Return a spec with the latent_dim, width and channels that most axes of the arrays show."""
    shapes = {names[native]: shape for native, shape in found.items() if native in names}
    expected, sizes = state_shapes(spec), {}
    for size in () if spec.architecture == "custom" else ("latent_dim", "width", "channels"):
        wider = state_shapes(spec.replace(**{size: getattr(spec, size) + 1}))
        shown = [
            length // (wide - own)
            for name, shape in shapes.items()
            if len(shape) == len(expected[name])
            for length, own, wide in zip(shape, expected[name], wider[name], strict=True)
            if length >= wide - own > 0
        ]
        if shown:
            sizes[size] = statistics.mode(shown)
    return spec.replace(**sizes)
