"""The kinds of file that hold networks: their names, which module handles them, several as one."""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared.files.atomic import staged
from shared.files.checkpoint import (
    CHECKPOINT,
    EVERYTHING,
    OPTIMIZERS,
    Contents,
    encode_description,
    spec_differences,
)
from shared.files.errors import InputError
from shared.formats import canonical_format
from shared.formats.native_contents import assemble, canonical_names, check_contents
from shared.formats.state_dicts import order_of_layers
from shared.interface import Arrays, MissingFrameworkError
from shared.spec import NETWORKS


@dataclass(frozen=True)
class FileKind:
    """One kind of file, of an `implementation`, or None, which is imported when it is needed.

    `carried`: what it has a place for, of EVERYTHING.
    """

    name: str
    implementation: str | None
    suffixes: tuple[str, ...]
    carried: tuple[str, ...] = EVERYTHING

    def read(self, path: Path) -> Contents:
        """Read a file and check all of it but the values; InputError, naming the file."""
        return self.module().read_native(path)

    def write(self, path: Path, contents: Contents) -> None:
        """Write a file for the framework's users, whole or not; InputError for a misfit."""
        check_contents(path, contents, self.carried)
        with staged(path.absolute()) as temporary:
            self.module().write_native(temporary, contents)

    def run(self, path: Path, contents: Contents, inputs: Arrays) -> Arrays:
        """Load a file as the framework's users do, around `read`; return its images and scores."""
        return self.module().run_native(path, contents, inputs)

    def module(self) -> Any:
        """Import what handles the kind; MissingFrameworkError unless what it needs is installed."""
        if self.implementation is None:
            return canonical_format
        try:
            return importlib.import_module(f"{self.implementation}_impl.native_format")
        except ImportError as error:
            raise MissingFrameworkError(f"files of kind {self.name}: {error}") from error


FILE_KINDS = {
    kind.name: kind
    for kind in (
        FileKind("safetensors", None, (".safetensors",)),
        FileKind("torch", "pytorch", (".pth", ".pt")),
        FileKind("keras", "tf", (".weights.h5",), carried=NETWORKS),
        FileKind("orbax", "jax", (".orbax",)),
    )
}
_SUFFIXES = tuple(suffix for kind in FILE_KINDS.values() for suffix in kind.suffixes)


def kind_of(path: Path) -> FileKind:
    """Return the kind of a file that is there by its content, of all else by the name."""
    kind = _kind_of_content(path) if path.is_file() else None
    if kind is None and tensorflow_prefix(path):
        return FILE_KINDS["keras"]
    if (path / "checkpoints").is_dir():
        raise InputError(f"{path} is the folder of a run; name a file in {path / 'checkpoints'}")
    if not path.exists() and not path.name.endswith(_SUFFIXES):
        raise InputError(f"{path}: expected a file of networks, found nothing")
    return kind or kind_of_name(path)


def tensorflow_prefix(path: Path) -> Path | None:
    """Return what the names of a checkpoint of TensorFlow begin with, None where there is none.

    `path`: this prefix itself, its index, a file of its data, or the folder of checkpoints, of
    which the one with the highest number is taken.
    """
    # A SavedModel has its own in the folder variables.
    found = [*path.glob("*.index"), *path.glob("variables/*.index")] if path.is_dir() else [path]
    newest = max(map(str, found), key=order_of_layers, default="")
    prefix = re.sub(r"\.(index|data-\d+-of-\d+)$", "", newest)
    return Path(prefix) if Path(f"{prefix}.index").is_file() else None


def kind_of_name(path: Path) -> FileKind:
    """Return the kind of a file by its name, a folder's is orbax; InputError for no kind."""
    for kind in FILE_KINDS.values():
        if path.name.endswith(kind.suffixes):
            return kind
    if path.is_dir():
        return FILE_KINDS["orbax"]
    endings = ", ".join(_SUFFIXES)
    raise InputError(f"{path}: the name has no known ending; expected one that ends in {endings}")


def _kind_of_content(path: Path) -> FileKind | None:
    with open(path, "rb") as file:
        start = file.read(2**16)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return FILE_KINDS["keras"]
    if start.lstrip().startswith(b"{") and b'"weight_map"' in start:
        return FILE_KINDS["torch"]
    if is_safetensors(path):
        # One without our header has PyTorch's names and layouts, as Hugging Face's have.
        is_ours = f'"format":"{CHECKPOINT.name}"'.encode() in start
        return FILE_KINDS["safetensors" if is_ours else "torch"]
    # A zip archive begins with the name of its first file.
    if start.startswith(b"PK") and re.match(rb".{28}(metadata|config)\.json", start[2:], re.DOTALL):
        return FILE_KINDS["keras"]  # a whole model
    is_torch = start.startswith((b"\x80\x02", b"\x80\x04")) or b"/data.pkl" in start[:512]
    return FILE_KINDS["torch"] if is_torch else None


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors does: the length of a header, and a JSON object."""
    with open(path, "rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def joined(sources: Mapping[Path, Contents]) -> Contents:
    """Return the contents of all sources as one; they must not overlap or disagree."""
    contents = list(sources.values())
    if len(contents) == 1:
        return contents[0]
    names = [name for held in contents for name in held.held]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"more than one file holds {', '.join(twice)}")
    path = Path(" and ".join(map(str, sources)))
    arrays = {name: array for held in contents for name, array in held.arrays.items()}
    progress = next((held.progress for held in contents if held.progress), {})
    stored = [held.spec for held in contents if held.spec_is_stored]
    description = encode_description(stored[0], progress) if stored else {}
    whole = assemble(path, arrays, description, canonical_names)
    for other in stored:
        if differences := spec_differences(other, whole.spec):
            raise InputError(f"{path} belong to other systems: {'; '.join(differences)}")
    if stored:
        return whole
    own = {o: getattr(held.spec, o) for held in contents for o in OPTIMIZERS if o in held.parts}
    return replace(whole, spec=whole.spec.replace(**own))
