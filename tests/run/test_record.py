"""The recorder: what it takes, what it keeps, what it refuses."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from shared.files.errors import InputError
from shared.files.recording import read_recording
from shared.record import Recorder


def test_order_steps_names_and_layouts_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "ours.safetensors"
    images = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    with Recorder(path, framework="numpy") as record:
        record("z/Odd name:0", np.arange(3), layout="N")
        record("images", images.transpose(0, 2, 3, 1), layout="NHWC")
        record.step()
        record("loss", 0.1)
        record("images", images[:, ::-1], layout="NCHW")
    recording = read_recording(path)
    assert recording.framework == "numpy"
    assert [(t.step, t.name, t.dtype, t.layout) for t in recording.tensors] == [
        (0, "z/Odd name:0", "int64", "N"),
        (0, "images", "float32", "NHWC"),
        (1, "loss", "python", None),
        (1, "images", "float32", "NCHW"),
    ]
    # Views are written as what they show, not as their memory lies.
    expected = (np.arange(3), images.transpose(0, 2, 3, 1), np.array(0.1), images[:, ::-1])
    for tensor, array in zip(recording.tensors, expected, strict=True):
        assert np.array_equal(tensor.array, array)
        assert tensor.array.shape == array.shape


def test_a_tensor_may_change_after_it_was_recorded(tmp_path: Path) -> None:
    weights = np.ones(3)
    with Recorder(tmp_path / "a") as record:
        record("before", weights)
        weights += 1
        record("after", weights)
    before, after = read_recording(tmp_path / "a").tensors
    assert (before.array == 1).all()
    assert (after.array == 2).all()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precisions_are_held_as_float32_and_noted(tmp_path: Path, dtype: type) -> None:
    values = np.array([1.0, -0.3, 300.0]).astype(dtype)
    with Recorder(tmp_path / "a") as record:
        record("x", values)
    (tensor,) = read_recording(tmp_path / "a").tensors
    assert tensor.dtype == np.dtype(dtype).name
    assert tensor.array.dtype == np.float32
    assert np.array_equal(tensor.array, values.astype(np.float32))


class OnlyDLPack:
    """A tensor without __array__."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **_: object) -> object:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def test_dlpack_is_enough(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a") as record:
        record("x", OnlyDLPack(np.arange(4.0)))
    assert np.array_equal(read_recording(tmp_path / "a").tensors[0].array, np.arange(4.0))


def test_the_same_name_twice_in_a_step_is_refused(tmp_path: Path) -> None:
    record = Recorder(tmp_path / "a")
    record.step()
    record("x", 1.0)
    with pytest.raises(InputError, match=r"'x' was recorded twice in step 1; .*record\.step"):
        record("x", 2.0)
    record.step()
    record("x", 2.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "gives no numbers"),
        ([1.0, 2.0], "neither __array__ nor __dlpack__"),
        (np.array(["a"]), "expected a tensor of at least one real number"),
        (np.array([1j]), "expected a tensor of at least one real number"),
        (np.zeros((2, 0)), r"shape \(2, 0\)"),
        (np.array([{}]), "dtype object"),
    ],
)
def test_what_is_no_tensor_of_numbers_is_refused(
    tmp_path: Path, value: object, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Recorder(tmp_path / "a")("x", value)


@pytest.mark.parametrize("layout", ["NCH", "NCHH", "nchw", "", "NC W", 4])
def test_a_layout_needs_one_letter_for_each_axis(tmp_path: Path, layout: object) -> None:
    with pytest.raises(InputError, match="4 different capital letters") as raised:
        Recorder(tmp_path / "a")("x", np.zeros((1, 2, 3, 4)), layout=layout)
    assert repr(layout) in str(raised.value)


@pytest.mark.parametrize("name", ["", " ", "a\nb", None, 3])
def test_a_name_is_printable_text(tmp_path: Path, name: object) -> None:
    with pytest.raises(InputError, match="expected a name"):
        Recorder(tmp_path / "a")(name, 1.0)


def test_a_loop_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with Recorder(path) as record:
        record("x", 1.0)
    before = path.read_bytes()

    def fails() -> None:
        with Recorder(path) as record:
            record("x", 2.0)
            record("y", 1 / 0)

    with pytest.raises(ZeroDivisionError):
        fails()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_recorded_and_no_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing was recorded"), Recorder(tmp_path / "a"):
        pass
    with pytest.raises(InputError, match=r"there is no folder .*none; make it"):
        Recorder(tmp_path / "none" / "a")
    assert list(tmp_path.iterdir()) == []


def forged(path: Path, **changes: str) -> None:
    """Write a recording and change fields of its header."""
    with Recorder(path) as record:
        record("x", np.zeros((2, 3)), layout="NF")
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] |= changes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


def entry(**changes: object) -> str:
    return json.dumps([{"step": 0, "name": "x", "dtype": "float64", "layout": None} | changes])


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "another"},
        {"format_version": "2"},
        {"tensors": "{"},
        {"tensors": "[]"},
        {"tensors": "[3]"},
        {"tensors": entry(name="y")},
        {"tensors": entry(step="0")},
        {"tensors": entry(layout="NHW")},
        {"tensors": entry(dtype=3)},
        {"tensors": entry(more=1)},
        {"tensors": json.dumps(2 * json.loads(entry()))},
    ],
)
def test_a_header_that_does_not_fit_is_one_line(tmp_path: Path, changes: dict) -> None:
    forged(tmp_path / "good")
    assert read_recording(tmp_path / "good").tensors[0].layout == "NF"
    forged(tmp_path / "bad", **changes)
    with pytest.raises(InputError) as raised:
        read_recording(tmp_path / "bad")
    assert "\n" not in str(raised.value)


# --- real frameworks ---------------------------------------------------------------------------


VALUES = [[1.5, -2.0], [0.25, 3.0]]
Tensors = dict[str, tuple[object, str]]  # of an awkward kind, with the dtype that must be noted


def torch_tensors() -> Tensors:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    plain = torch.tensor(VALUES)
    return {
        "plain": (plain, "float32"),
        "parameter": (torch.nn.Parameter(plain.clone()), "float32"),
        "inside a graph": (2 * torch.nn.Parameter(plain / 2), "float32"),
        "bfloat16": (plain.bfloat16().requires_grad_(), "bfloat16"),
        "float16": (plain.half(), "float16"),
        "transposed": (plain.T.contiguous().T, "float32"),
        "float64": (plain.double(), "float64"),
    }


def jax_tensors() -> Tensors:
    jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
    nnx = pytest.importorskip("flax.nnx", reason="Flax is not installed")
    plain = jnp.array(VALUES)
    return {
        "plain": (plain, "float32"),
        "bfloat16": (plain.astype("bfloat16"), "bfloat16"),
        "parameter": (nnx.Param(plain), "float32"),
    }


def tensorflow_tensors() -> Tensors:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    return {
        "plain": (tf.constant(VALUES), "float32"),
        "bfloat16": (tf.constant(VALUES, tf.bfloat16), "bfloat16"),
        "variable": (tf.Variable(VALUES), "float32"),
        "keras": (keras.Variable(np.array(VALUES, "float32")), "float32"),
    }


@pytest.mark.parametrize("made", [torch_tensors, jax_tensors, tensorflow_tensors])
def test_tensors_of_a_framework(tmp_path: Path, made: Callable[[], Tensors]) -> None:
    tensors = made()
    with Recorder(tmp_path / "a") as record:
        for key, (tensor, _) in tensors.items():
            record(key, tensor)
    for recorded in read_recording(tmp_path / "a").tensors:
        assert recorded.dtype == tensors[recorded.name][1], recorded.name
        assert np.array_equal(recorded.array, VALUES), recorded.name


def test_a_traced_value_says_where_to_record(tmp_path: Path) -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    record = Recorder(tmp_path / "a")
    with pytest.raises(InputError, match="record outside of jit"):
        jax.jit(lambda x: record("x", x))(1.0)
