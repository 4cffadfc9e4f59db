"""The file of a recording: named tensors of several steps in one safetensors file."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.files.errors import InputError, refused_as
from shared.files.system_file import stored_system
from shared.files.tensors import TensorFormat
from shared.interface import Array
from shared.spec import SystemSpec

PYTHON_NUMBER = "python"
"""The dtype of a Python number, which has the precision of whatever it was computed from."""
HALF_PRECISIONS = ("bfloat16", "float16")  # dtypes that are held as float32


_DTYPES = ("F32", "F64", "BOOL", *(f"{sign}{bits}" for sign in "IU" for bits in (8, 16, 32, 64)))
_ENTRY = ("step", "name", "dtype", "layout")
RECORDING = TensorFormat("a recording of shared.record", "gan-across-frameworks-recording", _DTYPES)


@dataclass(frozen=True)
class Recorded:
    """One recorded tensor; `step` counts from 0, `layout` is a letter for each axis or None.

    `dtype` is its framework's, where HALF_PRECISIONS are held as float32, or PYTHON_NUMBER.
    """

    name: str
    step: int
    dtype: str
    layout: str | None
    array: Array

    @property
    def key(self) -> str:
        """The name of the tensor in the file."""
        return f"{self.step}/{self.name}"


@dataclass(frozen=True)
class Recording:
    """What one file holds; `tensors` are in the order in which they were recorded."""

    path: Path
    framework: str
    tensors: tuple[Recorded, ...]
    system: SystemSpec | None = None


def write_recording(
    path: Path, framework: str, tensors: Iterable[Recorded], system: SystemSpec | None = None
) -> None:
    """Write a whole recording or nothing; raises OSError from the disk."""
    tensors = list(tensors)
    entries = [{field: getattr(tensor, field) for field in _ENTRY} for tensor in tensors]
    metadata = {"framework": framework, "tensors": json.dumps(entries)}
    metadata |= {"system": json.dumps(system.to_dict())} if system else {}
    RECORDING.write(path, {t.key: t.array for t in tensors}, metadata)


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """Read a recording; a missing, damaged or foreign file raises InputError in one line."""
    path = Path(path)
    arrays, metadata = RECORDING.read(path)
    expected = "a list of the tensors that are in the file in its header"
    with refused_as(path, expected, "record it again"):
        entries = json.loads(metadata["tensors"])
        described = {f"{e['step']}/{e['name']}": e for e in entries}
        text = metadata.get("system")
        system = stored_system(json.loads(text)) if text is not None else None
        valid = all(map(_is_entry, entries)) and metadata["framework"].isprintable()
        if not valid or described.keys() != arrays.keys() or not 0 < len(entries) == len(arrays):
            raise ValueError("another list")
    tensors = tuple(Recorded(array=arrays[key], **e) for key, e in described.items())
    try:
        for tensor in tensors:
            check_layout(tensor.name, tensor.layout, tensor.array.shape)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Recording(path, metadata["framework"], tensors, system)


def _is_entry(entry: dict[str, Any]) -> bool:
    layout = entry.get("layout")
    return (
        set(entry) == set(_ENTRY)
        and type(entry["step"]) is int
        and entry["step"] >= 0
        and all(isinstance(entry[f], str) and entry[f].isprintable() for f in ("name", "dtype"))
        and (layout is None or isinstance(layout, str))
    )


def check_layout(name: str, layout: str | None, shape: tuple[int, ...]) -> None:
    """Raise InputError unless a layout is None or has a capital letter for each axis."""
    if layout is None:
        return
    is_text = isinstance(layout, str) and layout.isalpha() and layout.isupper()
    if not is_text or len(set(layout)) != len(layout) or len(layout) != len(shape):
        raise InputError(
            f"{name!r} has shape {shape}; expected as its layout {len(shape)} different capital "
            f"letters, one for each axis, such as NCHW or OIHW; received {layout!r}"
        )
