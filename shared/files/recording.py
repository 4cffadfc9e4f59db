"""The file of a recording: named tensors of several steps in one safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from shared.files.checkpoint import write_file_atomically
from shared.files.errors import one_line, printable

FORMAT = "gan-across-frameworks-recording"
FORMAT_VERSION = "1"
PYTHON_NUMBER = "python"
"""The dtype of a Python number, which has the precision of whatever it was computed from."""
HALF_PRECISIONS = ("bfloat16", "float16")
"""Dtypes that are held as float32."""


class RecordingError(ValueError):
    """Something that cannot be recorded, or a file that is no recording; one line says why."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


@dataclass(frozen=True)
class Recorded:
    """One recorded tensor.

    `step` counts from 0. `dtype` is the one that it had in its framework: bfloat16 and float16 are
    held as float32, and a Python number's is "python". `layout` is a letter for each axis or None.
    """

    name: str
    step: int
    dtype: str
    layout: str | None
    array: np.ndarray


@dataclass(frozen=True)
class Recording:
    """What one file holds; `tensors` are in the order in which they were recorded."""

    path: Path
    framework: str
    tensors: tuple[Recorded, ...]


def write_recording(path: Path, framework: str, tensors: Iterable[Recorded]) -> None:
    """Write a whole recording or nothing; raises OSError from the disk."""
    tensors = list(tensors)
    entries = [
        {"step": t.step, "name": t.name, "dtype": t.dtype, "layout": t.layout} for t in tensors
    ]
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "framework": framework,
        "tensors": json.dumps(entries),
    }
    write_file_atomically(path, save({_key(t.step, t.name): t.array for t in tensors}, metadata))


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """Read a recording; a missing, damaged or foreign file raises RecordingError in one line."""
    path = Path(path)
    shown = printable(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise RecordingError(f"{shown}: expected a recording, found {found}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            entries = _entries(shown, metadata, set(file.keys()))
            arrays = [file.get_tensor(_key(e["step"], e["name"])) for e in entries]
        for entry, array in zip(entries, arrays, strict=True):
            check_layout(entry["name"], entry["layout"], array.shape)
    except RecordingError as error:
        raise RecordingError(f"{shown}: {str(error).removeprefix(f'{shown}: ')}") from error
    # TypeError: a dtype that NumPy does not have. ValueError, OverflowError: a shape such as
    # (2**63, 0), of nothing, that it does not take.
    except (SafetensorError, OSError, TypeError, ValueError, OverflowError) as error:
        raise RecordingError(
            f"{shown}: expected a recording of shared.record (safetensors), found a file that is "
            f"damaged or of another kind ({error})"
        ) from error
    tensors = tuple(Recorded(array=array, **e) for e, array in zip(entries, arrays, strict=True))
    return Recording(path, metadata["framework"], tensors)


def _entries(shown: str, metadata: dict[str, str], keys: set[str]) -> list[dict[str, Any]]:
    """Return the header's list of tensors; RecordingError unless it is that of the file."""
    for field, expected in (("format", FORMAT), ("format_version", FORMAT_VERSION)):
        if metadata.get(field) != expected:
            raise RecordingError(
                f"{shown}: expected a recording of shared.record, found a safetensors file whose "
                f"{field} is {metadata.get(field)!r} instead of {expected!r}"
            )
    try:
        entries = json.loads(metadata["tensors"])
        described = {_key(e["step"], e["name"]) for e in entries}
        valid = all(map(_is_entry, entries)) and metadata["framework"].isprintable()
    # ValueError: no JSON, or a number of too many digits. RecursionError: nested too deep.
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        valid, described = False, set()
    if not valid or not entries or described != keys or len(described) != len(entries):
        raise RecordingError(
            f"{shown}: the header's list of tensors does not fit the file; record it again"
        )
    return entries


def _is_entry(entry: dict[str, Any]) -> bool:
    layout = entry.get("layout")
    return (
        set(entry) == {"step", "name", "dtype", "layout"}
        and type(entry["step"]) is int
        and entry["step"] >= 0
        and all(isinstance(entry[f], str) and entry[f].isprintable() for f in ("name", "dtype"))
        and (layout is None or isinstance(layout, str))
    )


def _key(step: int, name: str) -> str:
    return f"{step}/{name}"


def check_layout(name: str, layout: str | None, shape: tuple[int, ...]) -> None:
    """Raise RecordingError unless a layout is None or has a capital letter for each axis."""
    if layout is None:
        return
    is_text = isinstance(layout, str) and layout.isalpha() and layout.isupper()
    if not is_text or len(set(layout)) != len(layout) or len(layout) != len(shape):
        raise RecordingError(
            f"{name!r} has shape {shape}; expected as its layout {len(shape)} different capital "
            f"letters, one for each axis, such as NCHW or OIHW; received {layout!r}"
        )
