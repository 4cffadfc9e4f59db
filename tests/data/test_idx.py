"""IDX files, alone and in folders: exact values, and an error for what is none."""

import gzip
import struct

import numpy as np
import pytest

from shared.data.dataset import load_dataset
from shared.files.errors import InputError
from tests.data.made_images import COLOUR, GREY, NOISE, idx, save


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "odd name ü"])
def test_idx_values_are_exact(tmp_path, compressed, name):
    content = idx(NOISE[..., 0])
    path = tmp_path / (name + ".gz" * compressed)
    path.write_bytes(gzip.compress(content) if compressed else content)
    dataset = load_dataset(path, GREY)
    np.testing.assert_array_equal(dataset.images, NOISE[..., :1])
    assert dataset.description == f"5 images from {path.name}"
    images = load_dataset(path, COLOUR).images
    np.testing.assert_array_equal(images, np.repeat(NOISE[..., :1], 3, axis=3))


def test_idx_with_channels(tmp_path):
    (tmp_path / "a.idx4").write_bytes(idx(NOISE))
    np.testing.assert_array_equal(load_dataset(tmp_path / "a.idx4", COLOUR).images, NOISE)
    luma = NOISE @ np.array([0.299, 0.587, 0.114])
    images = load_dataset(tmp_path / "a.idx4", GREY).images
    np.testing.assert_allclose(images[..., 0].astype(float), luma, atol=0.51)


def test_idx_of_another_size_is_resized_and_cropped(tmp_path):
    pixels = np.zeros((2, 28, 40), np.uint8)
    pixels[0], pixels[1, :, 6:34] = 50, 200  # the centre 28x28 of the second
    (tmp_path / "a-idx3-ubyte").write_bytes(idx(pixels))
    images = load_dataset(tmp_path / "a-idx3-ubyte", COLOUR).images
    assert (images[0] == 50).all()
    assert (images[1, :, 2:-2] == 200).all()


HUGE = 2**32 - 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(NOISE[..., 0])[:-1], "declares 20,480 bytes of pixels, found only 20,479"),
        (idx(NOISE[..., 0]) + b"\0", "declares 20,480 bytes of pixels, found more"),
        (idx(np.zeros(9, np.uint8)), r"holds labels \(00000801\), not images; expected 00000803"),
        (b"\0\0\x0d\x03" + bytes(12), "starts with 00000d03; expected 00000803"),
        (b"\x03\x08\0\0" + bytes(12), "starts with 03080000; expected 00000803"),
        (b"\0\0", "starts with 0000; expected"),
        (b"", "starts with nothing; expected"),
        (b"\0\0\x08\x03\0\0", "ends within its header; expected 3 dimensions"),
        (idx(np.zeros((0, 28, 28), np.uint8)), r"shape \(0, 28, 28\); .* none of them 0"),
        (idx(np.zeros((7, 0, 28), np.uint8)), r"shape \(7, 0, 28\); .* none of them 0"),
        (idx(np.zeros((2, 3, 9, 9), np.uint8)), r"channels come first \(NCHW\); .*0, 2, 3, 1"),
        (b"\0\0\x08\x03" + struct.pack(">3I", HUGE, HUGE, HUGE), "declares .* at most 4 GiB"),
        (b"\0\0\x08\x03" + struct.pack(">3I", 5000, 784, 784), "found only"),
        (b"\0\0\x08\x03" + struct.pack(">3I", 1, 1, 3 * 2**30) + b"x", "found only"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_bad_idx_is_an_error(tmp_path, content, message, compressed):
    path = tmp_path / "a-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(path, COLOUR)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("cut", [3, 11, 500, -9, -1])
def test_a_truncated_gz_is_an_error(tmp_path, cut):
    path = tmp_path / "a-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(NOISE[..., 0]))[:cut])
    with pytest.raises(
        InputError, match=r"a-idx3-ubyte\.gz: expected a whole IDX file, .*EOFError"
    ):
        load_dataset(path, COLOUR)


def test_a_gz_with_a_wrong_checksum_is_an_error(tmp_path):
    content = bytearray(gzip.compress(idx(NOISE[..., 0])))
    content[-8] ^= 1
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.gz cannot be read: CRC check failed"):
        load_dataset(tmp_path / "a.gz", COLOUR)


def test_a_folder_of_idx_files_gives_its_training_images(tmp_path):
    files = {
        "t10k-images-idx3-ubyte.gz": gzip.compress(idx(NOISE[:2, ..., 0])),
        "t10k-labels-idx1-ubyte.gz": gzip.compress(idx(np.zeros(2, np.uint8))),
        "train-images-idx3-ubyte.gz": gzip.compress(idx(NOISE[..., 0])),
        "train-images-idx3-ubyte": idx(NOISE[..., 0]),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    place = tmp_path.name
    dataset = load_dataset(tmp_path, GREY)
    assert dataset.description == f"5 images from {place}/train-images-idx3-ubyte"
    np.testing.assert_array_equal(dataset.images, NOISE[..., :1])
    (tmp_path / "train-images-idx3-ubyte").unlink()
    description = load_dataset(tmp_path, GREY).description
    assert description == f"5 images from {place}/train-images-idx3-ubyte.gz"
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    description = load_dataset(tmp_path, GREY).description
    assert description == f"2 images from {place}/t10k-images-idx3-ubyte.gz"
    save(tmp_path / "picture.png", NOISE[0])
    assert load_dataset(tmp_path, GREY).description == f"1 images from {place}"


def test_several_idx_files_are_an_error(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train-images-idx3-ubyte").write_bytes(idx(NOISE[..., 0]))
    with pytest.raises(
        InputError, match=r"holds several IDX files: .*a/train.*b/train.*; give one"
    ):
        load_dataset(tmp_path, GREY)
