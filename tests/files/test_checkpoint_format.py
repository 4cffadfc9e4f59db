"""The checkpoint file: nothing is lost, nothing is half written, nothing wrong is read."""

import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from shared.files.atomic import write_file_atomically
from shared.files.checkpoint import (
    read_checkpoint,
    spec_differences,
    write_checkpoint,
)
from shared.files.errors import InputError
from shared.spec import SYSTEMS, AdamSpec, state_shapes

SPEC = SYSTEMS["dcgan64"].replace(width=1, latent_dim=3, batch_size=2)
PROGRESS = {"step": 7, "seed": 3, "dataset": "digits"}
KERNEL = "generator/conv_transpose_1/kernel"
COUNTER = "generator_optimizer/step"


def make_arrays(dtype="float32", spec=SPEC):
    draw = np.random.default_rng(0)
    return {
        name: draw.standard_normal(shape).astype(dtype) if shape else np.array(41, np.int64)
        for name, shape in state_shapes(spec).items()
    }


def write_foreign(path, *, arrays=None, **metadata):
    """Write a file as another program would; a metadata field of None is left out."""
    header = {
        "format": "gan-across-frameworks",
        "format_version": "1",
        "spec": json.dumps(SPEC.to_dict()),
        "progress": json.dumps(PROGRESS),
        **metadata,
    }
    header = {name: text for name, text in header.items() if text is not None}
    save_file(make_arrays() if arrays is None else arrays, path, metadata=header)
    return path


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip_keeps_every_bit(tmp_path, dtype):
    arrays = make_arrays(dtype)
    arrays[KERNEL][0, 0, 0, 0], arrays[KERNEL][0, 0, 0, 1] = np.nan, -0.0
    write_checkpoint(tmp_path / "a.safetensors", arrays, SPEC, progress=PROGRESS)
    checkpoint = read_checkpoint(tmp_path / "a.safetensors")
    assert checkpoint.spec == SPEC
    assert checkpoint.progress == PROGRESS
    assert set(checkpoint.arrays) == set(arrays)
    for name, array in arrays.items():
        assert checkpoint.arrays[name].dtype == array.dtype, name
        assert checkpoint.arrays[name].shape == array.shape, name
        assert checkpoint.arrays[name].tobytes() == array.tobytes(), name


def test_arrays_that_are_not_contiguous_arrive_as_they_look(tmp_path):
    arrays = make_arrays()
    transposed = np.ascontiguousarray(arrays[KERNEL].T).T
    strided = np.repeat(arrays["generator/batch_norm_1/scale"], 2)[::2]
    assert not transposed.flags.c_contiguous
    assert not strided.flags.c_contiguous
    arrays |= {KERNEL: transposed, "generator/batch_norm_1/scale": strided}
    write_checkpoint(tmp_path / "a.safetensors", arrays, SPEC, progress=PROGRESS)
    read = read_checkpoint(tmp_path / "a.safetensors").arrays
    np.testing.assert_array_equal(read[KERNEL], transposed)
    np.testing.assert_array_equal(read["generator/batch_norm_1/scale"], strided)


def test_counters_stay_scalars(tmp_path):
    write_checkpoint(tmp_path / "a.safetensors", make_arrays(), SPEC, progress=PROGRESS)
    counter = read_checkpoint(tmp_path / "a.safetensors").arrays[COUNTER]
    assert (counter.shape, counter.dtype, int(counter)) == ((), np.int64, 41)


def test_file_is_plain_safetensors_with_a_text_header(tmp_path):
    path = tmp_path / "a.safetensors"
    write_checkpoint(path, make_arrays(), SPEC, progress=PROGRESS)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])["__metadata__"]
    assert header["format"] == "gan-across-frameworks"
    assert header["format_version"] == "1"
    assert json.loads(header["spec"])["width"] == 1
    assert json.loads(header["progress"]) == PROGRESS


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, function):
    path = tmp_path / "a.safetensors"
    write_checkpoint(path, make_arrays(), SPEC, progress=PROGRESS)
    before = path.read_bytes()

    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, function, refuse)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(path, make_arrays(), SPEC, progress={"step": 8})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_content_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, original=original: (calls.append(name), original(*a))
        )
    write_file_atomically(tmp_path / "a", b"content")
    assert calls == ["fsync", "replace", "fsync"]
    assert (tmp_path / "a").read_bytes() == b"content"


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"none\.st: expected a checkpoint file, found noth"):
        read_checkpoint(tmp_path / "none.st")
    with pytest.raises(InputError, match="expected a checkpoint file, found a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("size", [0, 5, 300, -1])
def test_truncated_file(tmp_path, size):
    path = tmp_path / "a.safetensors"
    write_checkpoint(path, make_arrays(), SPEC, progress=PROGRESS)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"a\.safetensors: expected a complete .*damaged file"):
        read_checkpoint(path)


def test_file_of_another_kind(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK\x03\x04 not safetensors" * 10)
    with pytest.raises(InputError, match=r"model\.pt: expected a complete safetensors file"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": None}, "expected the format 'gan-across-frameworks', found none"),
        ({"format": "pt"}, "expected the format 'gan-across-frameworks', found 'pt'"),
        ({"format_version": "2"}, "expected the format_version '1', found '2'"),
        ({"spec": None}, "expected a valid spec as JSON in the header, found .*KeyError: 'spec'"),
        ({"spec": "{"}, "expected a valid spec as JSON in the header, found .*JSONDecodeError"),
        (
            {"spec": "[]"},
            "expected a valid spec as JSON in the header, found .* is not of type .object.*",
        ),
        (
            {"spec": "{}"},
            "expected a valid spec as JSON .* found .*'name' is a required property",
        ),
        ({"progress": "3"}, "expected progress as JSON in the header, found .*'int' object"),
        ({"progress": "{}"}, "expected the number of completed steps, found None"),
        ({"progress": '{"step": -1}'}, "expected the number of completed steps, found -1"),
        ({"progress": '{"step": true}'}, "expected the number of completed steps, found True"),
    ],
)
def test_header_that_is_not_ours(tmp_path, metadata, message):
    path = write_foreign(tmp_path / "a.safetensors", **metadata)
    with pytest.raises(InputError, match=r"a\.safetensors: " + message):
        read_checkpoint(path)


def without(name):
    return {n: a for n, a in make_arrays().items() if n != name}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (without(KERNEL), f"missing: {KERNEL}"),
        (make_arrays() | {"extra": np.zeros(1, np.float32)}, "unexpected: extra"),
        (make_arrays() | {KERNEL: np.zeros((4, 4), np.float32)}, r"wrong shape: .*\(4, 4\)"),
        (make_arrays() | {COUNTER: np.zeros((1,), np.int64)}, r"wrong shape: .* instead of \(\)"),
        (make_arrays() | {COUNTER: np.zeros((), np.float32)}, "step as int64, found float32"),
        (make_arrays("float16"), "expected F32, F64, I64, found .* as F16"),
        (
            make_arrays() | {KERNEL: make_arrays("float64")[KERNEL]},
            rf"float32 \(discriminator/.*\), float64 \({KERNEL}\)",
        ),
        (
            make_arrays() | {KERNEL: np.zeros(make_arrays()[KERNEL].shape, np.int64)},
            rf"expected float32 alone or .* int64 \({KERNEL}\)",
        ),
    ],
)
def test_state_that_does_not_fit(tmp_path, arrays, message):
    path = write_foreign(tmp_path / "a.safetensors", arrays=arrays)
    with pytest.raises(InputError, match=r"a\.safetensors: .*" + message):
        read_checkpoint(path)


@pytest.mark.parametrize("arrays", [without(KERNEL), make_arrays("float16")])
def test_nothing_wrong_is_written(tmp_path, arrays):
    with pytest.raises(InputError):
        write_checkpoint(tmp_path / "a.safetensors", arrays, SPEC, progress=PROGRESS)
    assert not list(tmp_path.iterdir())


def test_progress_without_step_is_not_written(tmp_path):
    with pytest.raises(InputError, match="completed steps"):
        write_checkpoint(tmp_path / "a.safetensors", make_arrays(), SPEC, progress={})


def test_dtype_that_numpy_lacks(tmp_path):
    metadata = {"format": "gan-across-frameworks", "format_version": "1"}
    entry = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": metadata, KERNEL: entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(InputError, match=f"expected F32, F64, I64, found {KERNEL} as BF16"):
        read_checkpoint(path)


def test_another_system_is_told_field_by_field(tmp_path):
    path = tmp_path / "a.safetensors"
    write_checkpoint(path, make_arrays(), SPEC, progress=PROGRESS)
    asked = SPEC.replace(width=16, generator_optimizer=AdamSpec(learning_rate=1e-3))
    assert spec_differences(read_checkpoint(path).spec, asked) == [
        "width: 1 in the checkpoint, 16 asked for",
        "generator_optimizer.learning_rate: 0.0002 in the checkpoint, 0.001 asked for",
    ]


def test_no_differences_between_equal_specs():
    assert spec_differences(SPEC, SPEC.replace()) == []
