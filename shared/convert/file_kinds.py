"""The kinds of file that hold networks: how their names look and which module handles them."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.convert.native_contents import EVERYTHING, NativeContents
from shared.files.errors import InputError
from shared.interface import MissingFrameworkError, load_implementation
from shared.spec import NETWORKS

# Framework → the package that it needs for its files beside itself.
_EXTRA_PACKAGES = {"tf": "h5py", "jax": "orbax"}


@dataclass(frozen=True)
class FileKind:
    """One kind of file: `implementation` is None for the one that needs no framework.

    `carried`: what it has a place for, of EVERYTHING. `needs_everything`: it holds a whole training
    state or nothing. `read`, `write` and `run` raise MissingFrameworkError where the framework is
    not installed, and import it when they are first called.
    """

    name: str
    implementation: str | None
    suffixes: tuple[str, ...]
    carried: tuple[str, ...] = EVERYTHING
    needs_everything: bool = False

    def read(self, path: Path) -> NativeContents:
        """Read a file and check all of it but the values."""
        return self._module("native_format").read_native(path)

    def write(self, path: Path, contents: NativeContents) -> None:
        """Write a file that the framework's users can load; complete or not there at all."""
        self._module("native_format").write_native(path, contents)

    def run(
        self, path: Path, contents: NativeContents, latents: np.ndarray, images: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Load a file as the framework's users do, around `read`, and run its networks.

        So a mistake of `write` that `read` undoes shows as other numbers. `contents` names the
        networks. Returns images under "generator" and scores [batch] under
        "discriminator", both by the running statistics.
        """
        return self._module("native_networks").run_native(path, contents, latents, images)

    def require_framework(self) -> None:
        """Raise MissingFrameworkError unless what the kind needs is installed."""
        if self.implementation is None:
            return
        try:
            load_implementation(self.implementation)
        except MissingFrameworkError as error:
            raise MissingFrameworkError(f"files of kind {self.name}: {error}") from error
        package = _EXTRA_PACKAGES.get(self.implementation)
        if package and importlib.util.find_spec(package) is None:
            raise MissingFrameworkError(
                f"files of kind {self.name} need {package}, which is not installed; "
                f"install it with: pip install -c constraints.txt -e '.[{self.implementation}]'"
            )

    def _module(self, name: str) -> Any:
        if self.implementation is None:
            return importlib.import_module("shared.convert.canonical_format")
        self.require_framework()
        return importlib.import_module(f"{self.implementation}_impl.{name}")


FILE_KINDS = {
    kind.name: kind
    for kind in (
        FileKind("safetensors", None, (".safetensors",), needs_everything=True),
        FileKind("torch", "pytorch", (".pth", ".pt")),
        FileKind("keras", "tf", (".weights.h5",), carried=NETWORKS),
        FileKind("orbax", "jax", (".orbax",)),
    )
}


def kind_of(path: Path) -> FileKind:
    """Return the kind of a file by its name; a folder is orbax' whatever its name.

    Raises InputError for a name of no kind.
    """
    for kind in FILE_KINDS.values():
        if path.name.endswith(kind.suffixes):
            return kind
    if path.is_dir():
        return FILE_KINDS["orbax"]
    endings = ", ".join(suffix for kind in FILE_KINDS.values() for suffix in kind.suffixes)
    raise InputError(f"{path}: the name tells no kind of file; expected one that ends in {endings}")
