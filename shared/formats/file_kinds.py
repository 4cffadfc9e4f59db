"""The kinds of file that hold networks: how their names look and which module handles them."""

import importlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.files.atomic import staged
from shared.files.checkpoint import CHECKPOINT
from shared.files.errors import InputError
from shared.formats import canonical_format
from shared.formats.native_contents import EVERYTHING, NativeContents, check_contents
from shared.interface import Array, Arrays, MissingFrameworkError, load_implementation
from shared.spec import NETWORKS


@dataclass(frozen=True)
class FileKind:
    """One kind of file: `implementation` is None for the one that needs no framework.

    `carried`: what it has a place for, of EVERYTHING. `package`: what its files need beside the
    framework. `needs_everything`: it holds a whole training state or nothing. `read`, `write` and
    `run` raise MissingFrameworkError where the framework is not installed, and import it when they
    are first called.
    """

    name: str
    implementation: str | None
    suffixes: tuple[str, ...]
    carried: tuple[str, ...] = EVERYTHING
    package: str = ""
    needs_everything: bool = False

    def read(self, path: Path) -> NativeContents:
        """Read a file and check all of it but the values.

        Raises CheckpointError, naming the file, for a missing, damaged or foreign one, and for
        contents that do not fit.
        """
        return self._module().read_native(path)

    def list_arrays(self, path: Path) -> Arrays:
        """Return everything in a file that has a shape, by the file's own names."""
        return self._module().list_arrays(path)

    def write(self, path: Path, contents: NativeContents) -> None:
        """Write a file that the framework's users can load; it is complete or not there at all.

        Raises CheckpointError, before anything is written, for contents that do not fit.
        """
        check_contents(path, contents, self.carried)
        with staged(path.absolute()) as temporary:
            self._module().write_native(temporary, contents)

    def run(self, path: Path, contents: NativeContents, latents: Array, images: Array) -> Arrays:
        """Load a file as the framework's users do, around `read`, and run its networks.

        So a mistake of `write` that `read` undoes shows as other numbers. `contents` names the
        networks. Returns images under "generator" and scores [batch] under
        "discriminator", both by the running statistics.
        """
        return self._module().run_native(path, contents, latents, images)

    def require_framework(self) -> None:
        """Raise MissingFrameworkError unless what the kind needs is installed."""
        if self.implementation is None:
            return
        try:
            load_implementation(self.implementation)
        except MissingFrameworkError as error:
            raise MissingFrameworkError(f"files of kind {self.name}: {error}") from error
        if self.package and importlib.util.find_spec(self.package) is None:
            raise MissingFrameworkError(
                f"files of kind {self.name} need {self.package}, which is not installed; "
                f"install it with: pip install -c constraints.txt -e '.[{self.implementation}]'"
            )

    def _module(self) -> Any:
        if self.implementation is None:
            return canonical_format
        self.require_framework()
        return importlib.import_module(f"{self.implementation}_impl.native_format")


FILE_KINDS = {
    kind.name: kind
    for kind in (
        FileKind("safetensors", None, (".safetensors",), needs_everything=True),
        FileKind("torch", "pytorch", (".pth", ".pt")),
        FileKind("keras", "tf", (".weights.h5",), carried=NETWORKS, package="h5py"),
        FileKind("orbax", "jax", (".orbax",), package="orbax"),
    )
}


def kind_of(path: Path) -> FileKind:
    """Return the kind of a file that is there by its content, of all else by the name."""
    if path.is_file() and (kind := _kind_of_content(path)):
        return kind
    return kind_of_name(path)


def kind_of_name(path: Path) -> FileKind:
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


def _kind_of_content(path: Path) -> FileKind | None:
    with open(path, "rb") as file:
        start = file.read(2**16)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return FILE_KINDS["keras"]
    if is_safetensors(path):
        # One without our header has PyTorch's names and layouts, as Hugging Face's have.
        is_ours = f'"format":"{CHECKPOINT.name}"'.encode() in start
        return FILE_KINDS["safetensors" if is_ours else "torch"]
    # A zip archive begins with the name of its first file.
    if start.startswith(b"PK") and re.match(rb".{28}(metadata|config)\.json", start[2:], re.DOTALL):
        raise InputError(
            f"{path} is a whole model of Keras; load it there and save its weights with "
            "model.save_weights('….weights.h5')"
        )
    is_torch = start.startswith((b"\x80\x02", b"\x80\x04")) or b"/data.pkl" in start[:512]
    return FILE_KINDS["torch"] if is_torch else None


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors does: the length of a header, and a JSON object."""
    with open(path, "rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
