"""safetensors: checkpoints and recordings."""

import functools
import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from shared.files import checkpoint
from shared.files.checkpoint import write_checkpoint
from shared.files.errors import InputError
from shared.files.recording import read_recording
from shared.fixtures.network import representative_state
from shared.formats.canonical_format import read_native
from shared.formats.native_contents import part_shapes
from shared.record import Recorder
from shared.spec import SYSTEMS
from tests.apparatus.fuzz.json_mutators import mutated_document
from tests.apparatus.fuzz.places import Files
from tests.apparatus.fuzz.reader import Reader

_SPEC = SYSTEMS["mlp28"].replace(width=1, latent_dim=2, batch_size=2)
_EDGES = (0, 1, 3, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -1, 1.5, "4", None)
_DTYPES = ("F32", "F64", "I64", "BF16", "F16", "BOOL", "U64", "F8_E4M3", "F4", "C64", "X", 7, None)


def with_header(header: Any, data: bytes, length: int | None = None) -> bytes:
    """Return a safetensors file of any header, which may lie about its own length."""
    text = (
        header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    )
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the data of an intact file."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def attacks_on(samples: Callable[[], list[bytes]], texts: tuple[str, ...]) -> tuple[Any, ...]:
    """Return attacks on the header of a sample; `texts` are the metadata that hold JSON."""

    def lying_header(draw: Random) -> bytes:
        header, data = parts(draw.choice(samples()))
        for _ in range(draw.choice((1, 1, 2))):
            name = draw.choice([name for name in header if name != "__metadata__"])
            entry = header[name]
            start, end = entry["data_offsets"]
            changes: list[dict[str, Any]] = [
                {"shape": [draw.choice(_EDGES) for _ in range(draw.choice((0, 1, 2, 4, 70)))]},
                {"shape": [draw.choice((2**63, 2**62, 2**40)), 0], "data_offsets": [start, start]},
                {"shape": [1] * 40 + list(entry["shape"])},
                {"dtype": draw.choice(_DTYPES)},
                {"data_offsets": [draw.choice(_EDGES), draw.choice(_EDGES)]},
                {"data_offsets": [end, start]},
                {"extra": 1},
            ]
            header[draw.choice((name, name, "extra", "\x1b[31m\n", "x" * 5000))] = {
                **entry,
                **draw.choice(changes),
            }
        return with_header(header, data)

    def lying_length(draw: Random) -> bytes:
        header, data = parts(draw.choice(samples()))
        return with_header(header, data, draw.choice((0, 1, 2**20, 2**27, 2**40, 2**63, 2**64 - 1)))

    def other_metadata(draw: Random) -> bytes:
        header, data = parts(draw.choice(samples()))
        field = draw.choice(texts)
        _, text = mutated_document(draw, json.loads(header["__metadata__"][field]))
        header["__metadata__"][field] = text.decode("utf-8", "replace")
        return with_header(header, data)

    def other_header(draw: Random) -> bytes:
        header, data = parts(draw.choice(samples()))
        _, text = mutated_document(draw, header)
        return with_header(text, data)

    return lying_header, lying_length, other_metadata, other_metadata, other_metadata, other_header


# --- checkpoints -----------------------------------------------------------------------------


@functools.cache
def _checkpoints() -> list[bytes]:
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32", "float64"):
            state = representative_state(_SPEC, 0)
            arrays = {n: a if n.endswith("/step") else a.astype(dtype) for n, a in state.items()}
            path = Path(folder, "a.safetensors")
            write_checkpoint(path, arrays, _SPEC, progress={"step": 3, "seed": 7, "note": [1]})
            made.append(path.read_bytes())
    return made


def read_checkpoint(path: Path) -> None:
    contents = read_native(path)  # a part of a state, too
    shapes = {n: a.shape for n, a in contents.arrays.items()}
    assert shapes == part_shapes(contents.spec, contents.parts)
    assert not contents.progress or contents.progress["step"] >= 0
    assert shapes.keys() == checkpoint.read_checkpoint(path).arrays.keys()
    assert isinstance(contents.spec.generator_optimizer.learning_rate, int | float)
    assert contents.spec.name.isprintable()


_CHECKPOINT_FILES = Files(
    (".safetensors",), _checkpoints, attacks_on(_checkpoints, ("spec", "progress")), share=0.6
)
CHECKPOINT = Reader(
    "checkpoint",
    _CHECKPOINT_FILES.make,
    read_checkpoint,
    (InputError,),
    prepare=_CHECKPOINT_FILES.prepared(read_checkpoint),
)


# --- recordings ------------------------------------------------------------------------------


@functools.cache
def _recordings() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.safetensors")
        with Recorder(path, framework="pytorch") as record:
            for _ in range(2):
                record("images", np.zeros((2, 3, 4, 4), np.float32), layout="NCHW")
                record("loss", 0.5)
                record.step()
        return [path.read_bytes()]


def read_a_recording(path: Path) -> None:
    recording = read_recording(path)
    assert len(recording.tensors) >= 1
    for tensor in recording.tensors:
        assert tensor.layout is None or len(tensor.layout) == tensor.array.ndim
        assert tensor.step >= 0


_RECORDING_FILES = Files(
    (".safetensors",), _recordings, attacks_on(_recordings, ("tensors",)), share=0.6
)
RECORDING = Reader(
    "recording",
    _RECORDING_FILES.make,
    read_a_recording,
    (InputError,),
    prepare=_RECORDING_FILES.prepared(read_a_recording),
)
