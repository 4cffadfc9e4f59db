"""A training state as one safetensors file that every framework can write and read.

The arrays are those of `shared.spec.state_shapes`. The header holds text: the format and its
version, the spec and the progress of the run as JSON. There is no pickle in it.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shared.files.documents import flattened
from shared.files.errors import InputError, refused_as
from shared.files.system_file import stored_system
from shared.files.tensors import TensorFormat
from shared.interface import Array, Arrays, Shapes, check_arrays
from shared.spec import NETWORKS, NetworkName, SystemSpec, state_shapes
from shared.spec.compute import DTYPES

CHECKPOINT = TensorFormat("a checkpoint file", "gan-across-frameworks", ("F32", "F64", "I64"))

OPTIMIZERS = ("generator_optimizer", "discriminator_optimizer")
PARTS = (*NETWORKS, *OPTIMIZERS)
"""What a file may hold of a state; every array's name begins with one. Each is whole or absent."""
PROGRESS = "progress"
EVERYTHING = (*PARTS, PROGRESS)


@dataclass(frozen=True)
class Contents:
    """What one file holds.

    `arrays`: whole parts of a training state, by canonical name. `progress`: JSON, whose "step" is
    the number of completed steps; empty where the file has none. `spec_is_stored`: False for a spec
    read off the shapes. `notes`: one line for each thing that a training state has no place for.
    """

    arrays: Arrays
    spec: SystemSpec
    progress: dict[str, Any] = field(default_factory=dict)
    spec_is_stored: bool = True
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Which of PARTS are there."""
        return parts_of(self.arrays)

    @property
    def held(self) -> tuple[str, ...]:
        """Which of EVERYTHING is there."""
        return (*self.parts, PROGRESS) if self.progress else self.parts

    @property
    def networks(self) -> tuple[NetworkName, ...]:
        """Which networks are there."""
        return tuple(network for network in NETWORKS if network in self.parts)

    @property
    def is_one_network(self) -> bool:
        """Whether one network is all there is; formats then write it bare, as users do."""
        return len(self.held) == len(self.networks) == 1

    @property
    def dtype(self) -> str:
        """The dtype of the weights."""
        return next(str(a.dtype) for n, a in self.arrays.items() if not n.endswith("/step"))


def parts_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return which of PARTS some names begin with.

    >>> parts_of(["generator/conv_transpose_1/kernel", "generator_optimizer/step"])
    ('generator', 'generator_optimizer')
    """
    found = {name.split("/", 1)[0] for name in names}
    return tuple(part for part in PARTS if part in found)


def write_checkpoint(
    path: str | os.PathLike[str], arrays: Arrays, spec: SystemSpec, *, progress: dict[str, Any]
) -> None:
    """Write a whole training state, or nothing; `progress` has a whole number "step".

    `arrays` must be those of `state_shapes(spec)`: floats of one dtype (float32 or float64) and
    int64 counters. Raises InputError before anything is written, OSError from the disk.
    """
    path = Path(path)
    _check_state(path, arrays, spec)
    _check_progress(path, progress)
    CHECKPOINT.write(path, arrays, encode_description(spec, progress))


def read_checkpoint(path: str | os.PathLike[str]) -> Contents:
    """Read a training state and check all of it but the values; InputError for any other."""
    path = Path(path)
    arrays, metadata = CHECKPOINT.read(path)
    spec, progress = decode_description(path, metadata)
    if not progress:
        raise InputError(f"{path}: expected JSON as 'progress' in the header, found none")
    _check_state(path, arrays, spec)
    return Contents(arrays, spec, progress)


def encode_description(spec: SystemSpec, progress: dict[str, Any]) -> dict[str, str]:
    """Return format, version, spec and progress as text beside the arrays; of a file's nothing."""
    if spec.architecture == "custom":
        return {}
    description = CHECKPOINT.fields | {"spec": json.dumps(spec.to_dict())}
    return description | ({"progress": json.dumps(progress)} if progress else {})


def decode_description(path: Path, description: dict[str, str]) -> tuple[SystemSpec, Any]:
    """Return spec and progress, if any, of `encode_description`'s text; InputError."""
    CHECKPOINT.check(path, description)
    with refused_as(path, "a valid spec as JSON in the header"):
        spec = stored_system(json.loads(description["spec"]))
        if spec.architecture == "custom":
            raise ValueError("a system of a file, which has no checkpoints")
    if "progress" not in description:
        return spec, {}
    with refused_as(path, "progress as JSON in the header"):
        progress = json.loads(description["progress"])
        _check_progress(path, progress)
    return spec, progress


def spec_differences(found: SystemSpec, asked: SystemSpec) -> list[str]:
    """Return one text for every field that differs.

    >>> spec_differences(SYSTEMS["dcgan64"].replace(width=8), SYSTEMS["dcgan64"])
    ['width: 8 in the checkpoint, 64 asked for']
    """
    found_fields, asked_fields = flattened(found.to_dict()), flattened(asked.to_dict())
    return [
        f"{name}: {found_fields[name]} in the checkpoint, {value} asked for"
        for name, value in asked_fields.items()
        if found_fields[name] != value
    ]


def check_dtypes(path: Path, arrays: Arrays) -> None:
    """Raise InputError unless counters are int64 and all else is one dtype of floats."""
    counters = [name for name in arrays if name.endswith("_optimizer/step")]
    for name in counters:
        if arrays[name].dtype != np.int64:
            raise InputError(f"{path}: expected {name} as int64, found {arrays[name].dtype}")
    # The message names the first array of each dtype.
    examples = {str(arrays[name].dtype): name for name in reversed(arrays) if name not in counters}
    if len(examples) != 1 or not set(examples) <= set(DTYPES):
        found = ", ".join(f"{dtype} ({name})" for dtype, name in sorted(examples.items()))
        raise InputError(f"{path}: expected float32 alone or float64 alone, found {found}")


def _check_progress(path: Path, progress: dict[str, Any]) -> None:
    step = progress.get("step")
    if type(step) is not int or step < 0:
        raise InputError(f"{path}: expected the number of completed steps, found {step!r}")


def check_shapes(path: Path, arrays: Mapping[str, Array], expected: Shapes, what: str) -> None:
    """Raise InputError, which names `path`, unless these are the arrays that `what` has."""
    try:
        check_arrays(arrays, expected, what)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _check_state(path: Path, arrays: Arrays, spec: SystemSpec) -> None:
    check_shapes(path, arrays, state_shapes(spec), "the state")
    check_dtypes(path, arrays)
