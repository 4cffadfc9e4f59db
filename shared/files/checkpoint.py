"""A training state as one safetensors file that every framework can write and read.

The arrays have the canonical names and shapes of `shared.spec.state_shapes`. The header holds
text: the format and its version, the spec as JSON and the progress of the run as JSON. There is
no pickle in it, so a file from a stranger can be opened without running their code.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from shared.files.atomic import synchronize_folder
from shared.files.errors import one_line
from shared.interface import check_arrays
from shared.spec import SystemSpec, state_shapes
from shared.spec.limits import stored_spec

FORMAT = "gan-across-frameworks"
FORMAT_VERSION = "1"
FLOAT_DTYPES = ("float32", "float64")
_STORED_DTYPES = ("F32", "F64", "I64")  # safetensors' names


class CheckpointError(ValueError):
    """A file that is no checkpoint of this project, or not the one that was asked for: one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


@dataclass(frozen=True)
class Checkpoint:
    """What one file holds.

    `arrays`: the whole training state by canonical name. `progress`: JSON data about the run;
    "step" is the number of completed steps and always present, the rest is the writer's choice.
    """

    arrays: dict[str, np.ndarray]
    spec: SystemSpec
    progress: dict[str, Any]


def write_checkpoint(
    path: str | os.PathLike[str],
    arrays: dict[str, np.ndarray],
    spec: SystemSpec,
    *,
    progress: dict[str, Any],
) -> None:
    """Write a training state; the file is either complete or not there at all.

    `arrays` must be exactly those of `state_shapes(spec)`: floats of one dtype (float32 or
    float64), counters int64. `progress` is JSON data with a whole number "step". Raises
    CheckpointError before anything is written if they are not, OSError if the disk refuses.

    >>> write_checkpoint("step_000200.safetensors", arrays, spec, progress={"step": 200})
    """
    path = Path(path)
    _check_state(path, arrays, spec)
    check_progress(path, progress)
    metadata = encode_description(spec, progress)
    write_file_atomically(path, save({k: _contiguous(a) for k, a in arrays.items()}, metadata))


def read_checkpoint(
    path: str | os.PathLike[str], expected_spec: SystemSpec | None = None
) -> Checkpoint:
    """Read a training state and check all of it but the values, which may be NaN or infinite.

    Raises CheckpointError, naming the file, what was found and what was expected: for a missing,
    truncated or foreign file, another version, arrays that do not fit the spec in the header,
    and, where `expected_spec` is given, for every field in which the two specs differ.
    """
    path = Path(path)
    metadata, arrays = _read_safetensors(path)
    spec, progress = decode_description(path, metadata)
    if progress is None:
        raise CheckpointError(f"{path}: expected JSON as 'progress' in the header, found none")
    _check_state(path, arrays, spec)
    if expected_spec is not None and spec != expected_spec:
        differences = "; ".join(spec_differences(spec, expected_spec))
        raise CheckpointError(f"{path} was written for another system: {differences}")
    return Checkpoint(arrays, spec, progress)


def encode_description(spec: SystemSpec, progress: dict[str, Any] | None) -> dict[str, str]:
    """Return format, version, spec and progress as the text that goes beside the arrays."""
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "spec": json.dumps(spec.to_dict()),
    }
    return description if progress is None else description | {"progress": json.dumps(progress)}


def decode_description(path: Path, description: dict[str, str]) -> tuple[SystemSpec, Any]:
    """Return spec and progress from `encode_description`'s text; no progress is None.

    Raises CheckpointError, which names `path`, for anything that is not such a text.
    """
    _check_format(path, description)
    try:
        spec = stored_spec(_json_object(path, description, "spec"))
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{path}: the spec in the header is not valid: {error}") from error
    if "progress" not in description:
        return spec, None
    progress = _json_object(path, description, "progress")
    check_progress(path, progress)
    return spec, progress


def spec_differences(found: SystemSpec, asked: SystemSpec) -> list[str]:
    """Return one text for every field that differs.

    >>> spec_differences(SYSTEMS["dcgan64"].replace(width=8), SYSTEMS["dcgan64"])
    ['width: 8 in the checkpoint, 64 asked for']
    """
    found_fields, asked_fields = _flat(found.to_dict()), _flat(asked.to_dict())
    return [
        f"{name}: {found_fields[name]} in the checkpoint, {asked_fields[name]} asked for"
        for name in asked_fields
        if found_fields[name] != asked_fields[name]
    ]


def write_file_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never half.

    Raises OSError if the disk refuses; the old file is then still there.
    """
    # The same folder means the same file system, without which os.replace is not atomic.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    synchronize_folder(path.parent)


# --- writing ---------------------------------------------------------------------------------


def _contiguous(array: np.ndarray) -> np.ndarray:
    """Return the array in C order, which `safetensors.numpy` takes for granted.

    It writes the memory of a transposed array as it lies, that is, other numbers than meant.
    `np.ascontiguousarray` turns a scalar into shape (1,), hence the reshape.
    """
    return np.ascontiguousarray(array).reshape(np.shape(array))


# --- reading ---------------------------------------------------------------------------------


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise CheckpointError(f"{path}: expected a checkpoint file, found {found}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_format(path, metadata)
            names = list(file.keys())
            for name in names:
                # Asked first, because NumPy has no bfloat16 to read into.
                if (dtype := file.get_slice(name).get_dtype()) not in _STORED_DTYPES:
                    expected = ", ".join(_STORED_DTYPES)
                    raise CheckpointError(f"{path}: expected {expected}, found {name} as {dtype}")
            return metadata, {name: file.get_tensor(name) for name in names}
    except CheckpointError:
        raise
    # ValueError, OverflowError: a shape such as (2**63, 0), of nothing, that NumPy does not take.
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{path}: expected a complete safetensors file, found {path.stat().st_size} bytes "
            f"that are cut off or of another kind ({error})"
        ) from error


def _check_format(path: Path, metadata: dict[str, str]) -> None:
    for field, expected in (("format", FORMAT), ("format_version", FORMAT_VERSION)):
        if metadata.get(field) != expected:
            found = repr(metadata[field]) if field in metadata else "none"
            raise CheckpointError(f"{path}: expected the {field} {expected!r}, found {found}")


def _json_object(path: Path, metadata: dict[str, str], field: str) -> dict[str, Any]:
    text = metadata.get(field, "")
    try:
        value = json.loads(text)
    # ValueError: a number of too many digits as well; RecursionError: nested too deep.
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: expected JSON as {field!r} in the header, found {text[:40]!r} ({error})"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path}: expected a JSON object as {field!r} in the header, found {text[:40]!r}"
        )
    return value


def check_progress(path: Path, progress: dict[str, Any]) -> None:
    """Raise CheckpointError unless the progress has a whole number "step" of at least 0."""
    step = progress.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise CheckpointError(
            f"{path}: expected the number of completed steps as 'step' of the progress, "
            f"found {step!r}"
        )


def _check_state(path: Path, arrays: dict[str, np.ndarray], spec: SystemSpec) -> None:
    try:
        check_arrays(arrays, state_shapes(spec), "the state")
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    check_dtypes(path, arrays)


def check_dtypes(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Raise CheckpointError unless counters are int64 and all else is one dtype of floats."""
    counters = [name for name in arrays if name.endswith("_optimizer/step")]
    for name in counters:
        if arrays[name].dtype != np.int64:
            raise CheckpointError(f"{path}: expected {name} as int64, found {arrays[name].dtype}")
    # The first array of each dtype stands for it in the message.
    examples = {str(arrays[name].dtype): name for name in reversed(arrays) if name not in counters}
    if len(examples) != 1 or not set(examples) <= set(FLOAT_DTYPES):
        found = ", ".join(f"{dtype} ({name})" for dtype, name in sorted(examples.items()))
        raise CheckpointError(
            f"{path}: expected every array as float32 or every array as float64, found {found}"
        )


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    """Return nested fields under dotted names, such as "generator_optimizer.beta1"."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{inner}": v for inner, v in value.items()})
        else:
            flat[name] = value
    return flat
