"""NumPy archives: exact values, no pickles, and an error for what holds no images."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from shared.data.dataset import load_dataset
from shared.files.errors import InputError
from tests.data.made_images import COLOUR, GREY, NOISE, flat, npy


@pytest.mark.parametrize("dtype", ["uint8", ">f4", "float16", "float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save_npz", [np.savez, np.savez_compressed])
def test_npz_values_are_exact(tmp_path, dtype, order, save_npz):
    images = NOISE if dtype == "uint8" else (NOISE.astype(float) / 255).astype(dtype)
    save_npz(tmp_path / "a b.npz", images=np.asarray(images, order=order), labels=np.arange(5))
    dataset = load_dataset(tmp_path / "a b.npz", COLOUR)
    np.testing.assert_array_equal(dataset.images, NOISE)
    assert dataset.description == "5 images from a b.npz"


def test_npz_of_grey_images(tmp_path):
    np.savez(tmp_path / "a.npz", data=NOISE[..., 0], labels=np.arange(5))
    np.testing.assert_array_equal(load_dataset(tmp_path / "a.npz", GREY).images, NOISE[..., :1])
    np.savez(tmp_path / "a.npz", NOISE[..., :1])
    np.testing.assert_array_equal(load_dataset(tmp_path / "a.npz", GREY).images, NOISE[..., :1])


def test_npz_of_another_size_is_resized(tmp_path):
    np.savez(tmp_path / "a.npz", np.full((3, 32, 48, 3), (9, 99, 199), np.uint8))
    images = load_dataset(tmp_path / "a.npz", COLOUR).images
    np.testing.assert_array_equal(images, np.stack([flat((9, 99, 199))] * 3))


def with_value(value: float) -> np.ndarray:
    images = np.full((2, 8, 8, 3), 0.5, np.float32)
    images[1, 2, 3, 0] = value
    return images


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": NOISE.transpose(0, 3, 1, 2)}, r"\(5, 3, 64, 64\).*channels come first \(NCHW"),
        ({"images": NOISE[:, None, :, :, 0]}, r"images\.transpose\(0, 2, 3, 1\)"),
        ({"images": NOISE[0, :, 0]}, r"shape \(64, 3\); expected \[n, height, width\]"),
        ({"images": NOISE[:0]}, r"shape \(0, 64, 64, 3\); .* none of them 0"),
        ({"images": np.zeros((2, 8, 8, 4), np.uint8)}, r"shape \(2, 8, 8, 4\); expected .*1 or 3"),
        ({"images": NOISE.astype(np.int64)}, "has dtype int64; expected uint8"),
        ({"images": NOISE > 5}, "has dtype bool; expected uint8"),
        ({"images": NOISE.astype(np.complex64)}, "has dtype complex64"),
        ({"images": with_value(1.5)}, r"floats from 0\.5 to 1\.5; expected finite ones in \[0, 1"),
        ({"images": with_value(-1)}, r"floats from -1 to 0\.5"),
        ({"images": with_value(np.nan)}, "floats from nan to nan"),
        ({"images": with_value(np.inf)}, "floats from 0.5 to inf"),
        (
            {"a": NOISE, "b": NOISE},
            r"exactly one of 3 or 4 dimensions, found a \(5, 64, 64, 3\), b \(5, 64",
        ),
        ({"a": np.zeros(3)}, r"found a \(3,\)"),
        ({}, "found none"),
        ({"images": np.zeros(2, [("x", "u1")])}, "has dtype"),
    ],
)
def test_bad_npz_arrays_are_errors(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(tmp_path / "a.npz", COLOUR)
    assert str(caught.value).startswith(str(tmp_path / "a.npz"))


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickles_are_refused_and_do_not_run(tmp_path):
    payload = Payload(tmp_path / "ran")
    call, arguments = payload.__reduce__()
    call(*arguments)  # what unpickling would do
    assert payload.path.exists()
    payload.path.unlink()
    objects = np.full((2, 8, 8), payload, object)
    np.savez(tmp_path / "a.npz", images=objects)
    with pytest.raises(InputError, match=r"images\.npy has dtype object; expected uint8"):
        load_dataset(tmp_path / "a.npz", COLOUR)
    np.savez(tmp_path / "a.npz", other=objects, labels=np.arange(2))
    with pytest.raises(InputError, match=r"other\.npy has dtype object; expected uint8"):
        load_dataset(tmp_path / "a.npz", COLOUR)
    assert not payload.path.exists()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy("(100000, 1000, 1000)"), r"declares .*93\.1 GiB; expected at most 4 GiB"),
        (npy("(2, 8, 8)", bytes(127)), "declares 128 bytes of pixels, found only 127"),
        (npy("(2, 8, 8)", bytes(129)), "declares 128 bytes of pixels, found more"),
        (npy("(2, -8, 8)", bytes(128)), r"shape \(2, -8, 8\)"),
        (npy("(2, 8.0, 8)", bytes(128)), "whole .npz file.*shape is not valid"),
        (npy("(2, 8, 8)", bytes(128), version=b"\x02\x00"), r"format \(2, 0\); expected \(1, 0\)"),
        (npy("(2, 8, 8)", bytes(128), descr="\\d"), "whole .npz file"),
        (npy("(" + "-" * 9000 + "1,)"), "nested too deep|whole .npz file"),
        (npy("(" * 4000 + ")" * 4000), "nested too deep|whole .npz file"),
        (
            npy("(2L, 8L, 8L)", bytes(129)),
            "found more|whole .npz file",
        ),  # Python 2 wrote such numbers
        (b"\x93NUMPX  ", "expected a whole .npz file, found the magic string is not correct"),
        (b"", "expected a whole .npz file"),
    ],
)
def test_bad_npz_members_are_errors(tmp_path, member, message):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", member)
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path / "a.npz", COLOUR)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(3), b"nonsense" * 99]
)
def test_what_is_no_zip_is_an_error(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz: expected a whole \.npz file"):
        load_dataset(tmp_path / "a.npz", COLOUR)
