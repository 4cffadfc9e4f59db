"""Named arrays with a header of texts in one safetensors file: the one reader, the one writer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from shared.files.atomic import write_file_atomically
from shared.files.errors import InputError, refused_as, require_file
from shared.interface import Array, Arrays


@dataclass(frozen=True)
class TensorFormat:
    """A kind of safetensors file: what errors call it, the format that its header names.

    `dtypes` are those that it may hold, by safetensors' names.
    """

    noun: str
    name: str
    dtypes: tuple[str, ...]

    @property
    def fields(self) -> dict[str, str]:
        """The texts of the header that say which format it is."""
        return {"format": self.name, "format_version": "1"}

    def write(self, path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
        """Write a whole file or nothing; raises OSError from the disk."""
        # safetensors writes the memory of a transposed array as it lies, that is, other numbers
        # than meant. `np.ascontiguousarray` turns a scalar into shape (1,), hence the reshape.
        contiguous = {n: np.ascontiguousarray(a).reshape(a.shape) for n, a in arrays.items()}
        write_file_atomically(path, save(contiguous, {**self.fields, **metadata}))

    def read(self, path: Path) -> tuple[Arrays, dict[str, str]]:
        """Return arrays and header; InputError for a missing, damaged or foreign file."""
        require_file(path, self.noun)
        expected, advice = "a complete safetensors file", f"give {self.noun}"
        with (
            refused_as(path, expected, advice),
            safe_open(path, framework="numpy") as file,
        ):
            metadata = file.metadata() or {}
            self.check(path, metadata)
            names = list(file.keys())
            for name in names:
                # Asked first, because NumPy has no bfloat16 to read into.
                if (dtype := file.get_slice(name).get_dtype()) not in self.dtypes:
                    dtypes = ", ".join(self.dtypes)
                    raise InputError(f"{path}: expected {dtypes}, found {name} as {dtype}")
            return {name: file.get_tensor(name) for name in names}, metadata

    def check(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Raise InputError unless a header says that it is of this format and version."""
        for field, expected in self.fields.items():
            if metadata.get(field) != expected:
                found = repr(metadata[field]) if field in metadata else "none"
                raise InputError(
                    f"{path}: expected the {field} {expected!r}, found {found}; give {self.noun}"
                )
