"""The kinds of file that hold networks: how their names look and which module handles them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.convert.native_contents import NativeContents
from shared.interface import MissingFrameworkError, load_implementation

# Framework → the package that it needs for its files beside itself.
_EXTRA_PACKAGES = {"tf": "h5py", "jax": "orbax"}


@dataclass(frozen=True)
class FileKind:
    """One kind of file: `implementation` is None for the one that needs no framework.

    `needs_everything`: it holds a whole training state or nothing.
    """

    name: str
    implementation: str | None
    suffixes: tuple[str, ...]
    needs_everything: bool = False


@dataclass(frozen=True)
class FileFormat:
    """The functions of a kind; see `shared.convert.canonical_format`, which has them all."""

    carried: tuple[str, ...]
    read: Callable[[Path], NativeContents]
    write: Callable[[Path, NativeContents], None]
    run: Callable[[Path, NativeContents, np.ndarray, np.ndarray], dict[str, np.ndarray]]


FILE_KINDS = {
    kind.name: kind
    for kind in (
        FileKind("safetensors", None, (".safetensors",), needs_everything=True),
        FileKind("torch", "pytorch", (".pth", ".pt")),
        FileKind("keras", "tf", (".weights.h5",)),
        FileKind("orbax", "jax", (".orbax",)),
    )
}


def kind_of(path: Path) -> FileKind:
    """Return the kind that a name stands for; a folder is orbax' whatever its name.

    Raises ValueError for a name that stands for none.
    """
    for kind in FILE_KINDS.values():
        if path.name.endswith(kind.suffixes):
            return kind
    if path.is_dir():
        return FILE_KINDS["orbax"]
    endings = ", ".join(suffix for kind in FILE_KINDS.values() for suffix in kind.suffixes)
    raise ValueError(f"{path}: the name says no kind of file; expected one that ends in {endings}")


def load_format(kind: FileKind) -> FileFormat:
    """Return the functions of a kind; MissingFrameworkError if its framework is not installed."""
    if kind.implementation is None:
        formats = networks = importlib.import_module("shared.convert.canonical_format")
    else:
        _require_packages(kind)
        formats = importlib.import_module(f"{kind.implementation}_impl.native_format")
        networks = importlib.import_module(f"{kind.implementation}_impl.native_networks")
    return FileFormat(
        formats.CARRIED, formats.read_native, formats.write_native, networks.run_native
    )


def _require_packages(kind: FileKind) -> None:
    name: Any = kind.implementation
    try:
        load_implementation(name)
    except MissingFrameworkError as error:
        raise MissingFrameworkError(f"files of kind {kind.name}: {error}") from error
    package = _EXTRA_PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        raise MissingFrameworkError(
            f"files of kind {kind.name} need {package}, which is not installed; "
            f"install it with: pip install -c constraints.txt -e '.[{name}]'"
        )
