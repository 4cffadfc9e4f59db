"""Recording the numbers of anybody's own training loop: named tensors of any framework, one file.

    with Recorder("ours.safetensors", framework="pytorch") as record:
        record("images", fake, layout="NCHW")
        record("discriminator/conv_1/kernel", conv.weight, layout="OIHW")
        record.step()     # what follows belongs to the next step

Two such files are compared by `shared.explain.recordings`; docs/recordings.md walks through it.
No framework is imported here: a tensor is asked for what it can do.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from shared.checkpoint_format import write_file_atomically
from shared.image_files import printable

FORMAT = "gan-across-frameworks-recording"
FORMAT_VERSION = "1"
PYTHON_NUMBER = "python"
"""The dtype of a Python number, which has the precision of whatever it was computed from."""

_HALF = ("bfloat16", "float16")
_STORED = (
    "float32",
    "float64",
    "bool",
    *(f"{s}int{n}" for s in ("", "u") for n in (8, 16, 32, 64)),
)


class RecordingError(ValueError):
    """Something that cannot be recorded, or a file that is no recording; the message says why."""


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


class Recorder:
    """Collects named tensors in memory and writes them when the block ends without an error.

    The file is complete or not there: a block that raises leaves what was at `path` before. Values
    are copied at once, so a tensor may be changed in place afterwards. Raises RecordingError for a
    name given twice in a step, for what is no tensor of numbers, and at the end where nothing was
    recorded.
    """

    def __init__(self, path: str | os.PathLike[str], *, framework: str = "unknown") -> None:
        self.path = Path(path)
        self.framework = framework
        self._step = 0
        self._tensors: dict[tuple[int, str], Recorded] = {}
        if not self.path.parent.is_dir():
            raise RecordingError(
                f"{printable(path)}: expected an existing folder to write to, found no "
                f"{printable(self.path.parent)}; make it first"
            )

    def __call__(self, name: str, value: Any, *, layout: str | None = None) -> None:
        """Record a tensor of any framework, or a number, under a name used as it is.

        `layout` has a letter for each axis, such as NCHW for images, OIHW for a kernel, NF for
        features: N batch, H height, W width, C channels, I in, O out, F features. Any other
        letters count as well, as long as both recordings use the same ones.
        """
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise RecordingError(f"expected a name of printable characters, received {name!r}")
        if (self._step, name) in self._tensors:
            raise RecordingError(
                f"{name!r} was recorded twice in step {self._step}; give the second another name, "
                "or call record.step() between the two"
            )
        array, dtype = _to_numpy(name, value)
        _check_layout(name, layout, array.shape)
        self._tensors[self._step, name] = Recorded(name, self._step, dtype, layout, array)

    def step(self) -> None:
        """Begin the next step: names recorded from here on may repeat earlier ones."""
        self._step += 1

    def close(self) -> None:
        """Write the file; raises RecordingError if nothing was recorded, OSError from the disk."""
        if not self._tensors:
            raise RecordingError(f"{printable(self.path)}: nothing was recorded, nothing written")
        entries = [
            {"step": t.step, "name": t.name, "dtype": t.dtype, "layout": t.layout}
            for t in self._tensors.values()
        ]
        metadata = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "framework": self.framework,
            "tensors": json.dumps(entries),
        }
        arrays = {_key(t.step, t.name): t.array for t in self._tensors.values()}
        write_file_atomically(self.path, save(arrays, metadata))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()


def _key(step: int, name: str) -> str:
    return f"{step}/{name}"


def _check_layout(name: str, layout: str | None, shape: tuple[int, ...]) -> None:
    if layout is None:
        return
    is_text = isinstance(layout, str) and layout.isalpha() and layout.isupper()
    if not is_text or len(set(layout)) != len(layout) or len(layout) != len(shape):
        raise RecordingError(
            f"{name!r} has shape {shape}; expected as its layout {len(shape)} different capital "
            f"letters, one for each axis, such as NCHW or OIHW; received {layout!r}"
        )


def _to_numpy(name: str, value: Any) -> tuple[np.ndarray, str]:
    """Return a copy of a tensor in C order and the name of its own dtype."""
    if isinstance(value, bool | int | float):
        array, dtype = np.array(value), PYTHON_NUMBER
    else:
        try:
            array = _as_array(value)
        # A framework may raise anything of its own for a tensor that has no values to give.
        except Exception as error:
            reason = str(error).strip().splitlines()
            raise RecordingError(
                f"{name!r} is a {type(value).__name__} that gives no numbers "
                f"({reason[0] if reason else type(error).__name__}); record outside of jit, "
                "tf.function and the like"
            ) from error
        dtype = _own_dtype(value, array)
    if array.dtype.name in _HALF:
        array = array.astype(np.float32)
    if array.dtype.name not in _STORED or array.size == 0:
        raise RecordingError(
            f"{name!r} is a {type(value).__name__} of dtype {array.dtype} and shape {array.shape}; "
            "expected a tensor of at least one real number"
        )
    native = array.astype(array.dtype.newbyteorder("="))
    # `np.ascontiguousarray` would turn a scalar into shape (1,).
    return np.array(native, order="C"), dtype


def _as_array(value: Any) -> np.ndarray:
    """Return a tensor's values; one of PyTorch's is detached and brought to the CPU first."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # NumPy has no such dtype
            value = value.float()
    if hasattr(value, "__array__"):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    raise TypeError("it has neither __array__ nor __dlpack__")


def _own_dtype(value: Any, array: np.ndarray) -> str:
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":
        return "bfloat16"
    return array.dtype.name


# --- reading ---------------------------------------------------------------------------------


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
            _check_layout(entry["name"], entry["layout"], array.shape)
    # TypeError: a dtype that NumPy does not have.
    except (SafetensorError, OSError, TypeError) as error:
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
        valid = all(_is_entry(e) for e in entries) and "framework" in metadata
    except (KeyError, TypeError, json.JSONDecodeError):
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
        and all(isinstance(entry[field], str) for field in ("name", "dtype"))
        and (layout is None or isinstance(layout, str))
    )
