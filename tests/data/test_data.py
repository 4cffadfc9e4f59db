"""Loading images: every input is made here, every expected number has a source of its own."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from shared.data import images as image_files
from shared.data.dataset import (
    Batches,
    DataError,
    ImageDataset,
    load_dataset,
    to_image_range,
    to_pixels,
)
from shared.spec import SYSTEMS, SystemSpec
from shared.spec.streams import batch_order

COLOUR = SYSTEMS["dcgan64"]
GREY = COLOUR.replace(channels=1)
UNIT = COLOUR.replace(image_range=(0.0, 1.0))
NOISE = np.random.default_rng(20).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


def one_image(folder: Path, spec=COLOUR) -> np.ndarray:
    images = load_dataset(folder, spec).images
    assert images.shape == (1, *spec.image_shape)
    assert images.dtype == np.uint8
    return images[0]


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def flat(colour) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (64, 64, 3)).copy()


def triangle_weights(old: int, new: int) -> np.ndarray:
    """Antialiased bilinear resizing of one axis as a matrix [new, old], from its definition.

    A triangle about each new pixel's centre, whose half-width is the larger of an old and a new
    pixel; its weights add up to 1, at the borders too.
    """
    scale = old / new
    distances = (np.arange(new)[:, None] + 0.5) * scale - (np.arange(old) + 0.5)
    weights = np.maximum(0, 1 - np.abs(distances) / max(1.0, scale))
    return weights / weights.sum(axis=1, keepdims=True)


# --- the embedded default --------------------------------------------------------------------


def test_the_default_is_the_digits_of_scikit_learn():
    from sklearn.datasets import load_digits

    dataset = load_dataset(None, COLOUR)
    assert dataset.description == "1,797 scikit-learn digits"
    assert dataset.skipped == ()
    assert dataset.images.shape == (1797, 64, 64, 3)
    assert dataset.images.dtype == np.uint8
    np.testing.assert_array_equal(dataset.images[..., 0], dataset.images[..., 2])
    assert (dataset.images.min(), dataset.images.max()) == (0, 255)
    ink = np.rint(load_digits().images * 255 / 16)
    expected = triangle_weights(8, 64) @ ink @ triangle_weights(8, 64).T
    np.testing.assert_allclose(dataset.images[..., 0], expected, atol=1.01)


# --- folders of pictures ---------------------------------------------------------------------


def test_pictures_of_the_right_size_pass_unchanged(tmp_path):
    save(tmp_path / "a.png", NOISE[0])
    np.testing.assert_array_equal(one_image(tmp_path), NOISE[0])


def test_nested_pictures_come_in_the_order_of_their_paths(tmp_path):
    names = ["B.PNG", "a/z.Bmp", "a/é ü.png", "a.tiff", "z/y/x/w.PPM"]
    for i, name in enumerate(names):
        save(tmp_path / name, flat([i, 0, 0]), format=None)
    (tmp_path / "notes.txt").write_text("no image")
    dataset = load_dataset(str(tmp_path), COLOUR)
    # Code points: "B" < "a"; "." < "/".
    assert sorted(names) == ["B.PNG", "a.tiff", "a/z.Bmp", "a/é ü.png", "z/y/x/w.PPM"]
    assert dataset.images[:, 0, 0, 0].tolist() == [names.index(name) for name in sorted(names)]
    assert dataset.skipped == ()
    assert dataset.description == f"5 images from {tmp_path.name}"


@pytest.mark.parametrize("suffix", image_files.IMAGE_SUFFIXES)
def test_every_suffix_is_read(tmp_path, suffix):
    mode = "L" if suffix == ".pgm" else "RGB"
    Image.new(mode, (70, 64), 60 if mode == "L" else (60, 60, 60)).save(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(one_image(tmp_path), 60, atol=1)


@pytest.mark.parametrize("extra", [29, 30, 31, 33])
@pytest.mark.parametrize("wide", [True, False])
def test_the_centre_is_cut_out(tmp_path, extra, wide):
    pixels = np.zeros((64, 64 + extra, 3), np.uint8)
    pixels[..., 0] = np.arange(64 + extra)
    pixels[..., 1] = np.arange(64)[:, None]
    offset = {29: 14, 30: 15, 31: 16, 33: 16}[extra]  # torchvision's int(round(extra / 2))
    expected = pixels[:, offset : offset + 64]
    if not wide:
        pixels, expected = pixels.transpose(1, 0, 2), expected.transpose(1, 0, 2)
    save(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(one_image(tmp_path), expected)


def test_downsampling_is_the_antialiased_triangle_filter(tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (256, 256), dtype=np.uint8)
    save(tmp_path / "a.png", pixels)
    expected = triangle_weights(256, 64) @ pixels @ triangle_weights(256, 64).T
    np.testing.assert_allclose(one_image(tmp_path, GREY)[..., 0], expected, atol=1.01)


@pytest.mark.parametrize("shape", [(1, 1, 3), (8, 5, 3), (63, 40, 3), (1, 200, 3), (200, 150, 3)])
def test_other_sizes_are_resized(tmp_path, shape):
    save(tmp_path / "a.png", np.full(shape, (10, 20, 200), np.uint8))
    np.testing.assert_array_equal(one_image(tmp_path), flat([10, 20, 200]))


# An L-shaped mark that no rotation or reflection leaves alone; stored → upright by EXIF 2.3, 4.6.4.
UPRIGHT_BY_ORIENTATION = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "jpg"])
@pytest.mark.parametrize("orientation", UPRIGHT_BY_ORIENTATION)
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    stored = flat(0)
    stored[:16, :48] = (250, 0, 0)
    stored[:48, :16] = (0, 0, 250)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}
    save(tmp_path / f"a.{suffix}", stored, exif=exif, **options.get(suffix, {}))
    expected = UPRIGHT_BY_ORIENTATION[orientation](stored)
    tolerance = 3 if suffix == "jpg" else 0
    np.testing.assert_allclose(one_image(tmp_path).astype(int), expected, atol=tolerance)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_is_no_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "a.png", NOISE[0], exif=exif)
    np.testing.assert_array_equal(one_image(tmp_path), NOISE[0])


def test_broken_exif_does_not_cost_the_picture(tmp_path):
    save(tmp_path / "a.png", NOISE[0], exif=b"Exif\0\0II*\0nonsense")
    save(tmp_path / "b.png", NOISE[1], exif=b"Exif\0\0nonsense")
    dataset = load_dataset(tmp_path, COLOUR)
    assert dataset.skipped == ()
    np.testing.assert_array_equal(dataset.images, NOISE[:2])


# Mode → (what to save, what has to be seen). 0.299, 0.587, 0.114 are the weights of luma.
ORANGE = (255, 128, 0)
LUMA_OF_ORANGE = 0.299 * 255 + 0.587 * 128


def picture(mode: str) -> tuple[Image.Image, tuple[float, float, float], str]:
    size = (64, 64)
    match mode:
        case "1":
            return Image.new("1", size, 1), (255, 255, 255), "png"
        case "L":
            return Image.new("L", size, 77), (77, 77, 77), "png"
        case "LA":  # 100 over white at 128/255
            grey = 100 * 128 / 255 + 255 * 127 / 255
            return Image.new("LA", size, (100, 128)), (grey, grey, grey), "png"
        case "RGB":
            return Image.new("RGB", size, ORANGE), ORANGE, "png"
        case "RGBA transparent":
            return Image.new("RGBA", size, (0, 0, 0, 0)), (255, 255, 255), "png"
        case "RGBA opaque":
            return Image.new("RGBA", size, (*ORANGE, 255)), ORANGE, "webp"
        case "P":
            image = Image.new("P", size, 1)
            image.putpalette([0, 0, 0, *ORANGE])
            return image, ORANGE, "gif"
        case "P transparent":
            image = Image.new("P", size, 1)
            image.putpalette([0, 0, 0, *ORANGE])
            image.info["transparency"] = bytes([255, 0])
            return image, (255, 255, 255), "png"
        case "CMYK":  # red + half green: no cyan, half magenta, all yellow
            return Image.new("CMYK", size, (0, 127, 255, 0)), ORANGE, "tiff"
        case "CMYK JPEG":
            return Image.new("CMYK", size, (0, 127, 255, 0)), ORANGE, "jpg"
        case "I;16 PNG":  # 0x4000 / 0xFFFF of white
            return Image.fromarray(np.full(size, 0x4000, np.uint16)), (63.75,) * 3, "png"
        case "I;16 TIFF":
            return Image.fromarray(np.full(size, 0xFFFF, np.uint16)), (255,) * 3, "tiff"
        case "I;16B":
            pixels = np.full(size, 0x8000, ">u2")
            return Image.frombytes("I;16B", size, pixels.tobytes()), (127.5,) * 3, "tiff"
        case "YCbCr":
            return Image.new("RGB", size, ORANGE).convert("YCbCr"), ORANGE, "tiff"
    raise KeyError(mode)


MODES = (
    *("1", "L", "LA", "RGB", "RGBA transparent", "RGBA opaque", "P", "P transparent", "CMYK"),
    *("CMYK JPEG", "I;16 PNG", "I;16 TIFF", "I;16B", "YCbCr"),
)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_shows_its_colour(tmp_path, mode):
    image, colour, suffix = picture(mode)
    image.save(tmp_path / f"a.{suffix}")
    tolerance = 3 if suffix in ("jpg", "webp") or mode == "YCbCr" else 1
    seen = one_image(tmp_path).astype(int)
    np.testing.assert_allclose(seen, np.broadcast_to(colour, seen.shape), atol=tolerance)
    luma = np.dot(colour, (0.299, 0.587, 0.114))
    np.testing.assert_allclose(one_image(tmp_path, GREY).astype(int), luma, atol=tolerance)


@pytest.mark.parametrize("maximum", [255, 1023, 65535])
def test_pgm_is_scaled_by_its_own_maximum(tmp_path, maximum):
    numbers = np.full((64, 64), maximum * 2 // 5, ">u1" if maximum < 256 else ">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 64 64 %d\n" % maximum + numbers.tobytes())
    np.testing.assert_allclose(one_image(tmp_path), 102, atol=1)


def test_sixteen_bits_keep_their_order(tmp_path):
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16
    save(tmp_path / "a.png", ramp)
    np.testing.assert_array_equal(one_image(tmp_path, GREY)[..., 0], np.rint(ramp / 257))


def test_a_large_jpeg_is_decoded_small_but_stays_antialiased(tmp_path):
    y, x = np.mgrid[:1024, :1280]
    # One-pixel stripes on the left, which aliasing would turn into moiré; a slow wave on the right.
    values = np.where(x < 640, 255 * (x % 2), 127 + 100 * np.sin(x / 60) * np.cos(y / 90))
    save(tmp_path / "a.jpg", values.astype(np.uint8), quality=98)
    seen = one_image(tmp_path, GREY)[..., 0].astype(float)
    with Image.open(tmp_path / "a.jpg") as image:
        full = image.resize((80, 64), Image.Resampling.BILINEAR).crop((8, 0, 72, 64))
    difference = np.abs(seen - np.asarray(full, float))
    assert difference.mean() < 0.5
    assert np.delete(difference, [31, 32, 33], axis=1).max() < 3  # the seam is a hard edge
    assert seen[:, :30].std() < 2


def test_bad_files_are_skipped_and_named(tmp_path):
    save(tmp_path / "a.png", NOISE[0])
    save(tmp_path / "c" / "ok.png", NOISE[1])
    whole = save(tmp_path / "whole.jpg", NOISE[2]).read_bytes()
    (tmp_path / "whole.jpg").unlink()
    (tmp_path / "b cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c" / "größe.png").write_bytes(b"")
    (tmp_path / "d.gif").write_text("<html>404</html>")
    Image.fromarray(np.ones((64, 64), np.float32)).save(tmp_path / "e.tiff")
    (tmp_path / "f.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "g.png")
    dataset = load_dataset(tmp_path, COLOUR)
    np.testing.assert_array_equal(dataset.images, NOISE[:2])
    assert dataset.description == f"2 images from {tmp_path.name} (6 skipped)"
    expected = [
        ("b cut.jpg", "unreadable: .*truncated"),
        ("c/größe.png", "unreadable: expected the content of a JPEG, PNG"),
        ("d.gif", "unreadable: expected the content of a JPEG, PNG"),
        ("e.tiff", "32-bit pixels have no fixed range; expected 8 or 16 bits"),
        ("f.jpg", "not a regular file"),
        ("g.png", "not a regular file"),
    ]
    assert len(dataset.skipped) == len(expected)
    for line, (name, reason) in zip(dataset.skipped, expected, strict=True):
        path, found = line.split(": ", 1)
        assert path == str(tmp_path / name)
        assert re.match(reason, found), line


def test_a_name_of_undecodable_bytes_can_be_printed(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("the file system takes only UTF-8 names")
    save(tmp_path / "a.png", NOISE[0])
    (line,) = load_dataset(tmp_path, COLOUR).skipped
    assert "\\udcff.png: unreadable" in line
    line.encode("utf-8")


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header declares a size and whose pixels are missing."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT" + b"\0" * 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (8001, 8000, "too large: 8001x8000 pixels; expected at most 64,000,000 pixels"),
        (10000, 10000, "too large: 10000x10000 pixels"),  # Pillow warns
        (60000, 60000, "too large: .*3600000000 pixels"),  # Pillow raises
        (20000, 1, "too narrow: 20000x1 pixels, 1280000x64 when resized"),
        (0, 5, "unreadable|expected at least 1x1"),
    ],
)
def test_decompression_bombs_are_refused_unopened(tmp_path, width, height, reason):
    (tmp_path / "bomb.png").write_bytes(png_of(width, height))
    with pytest.raises(DataError, match=reason):
        load_dataset(tmp_path, COLOUR)


def test_the_largest_allowed_picture_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MAXIMUM_PIXELS", 70 * 80)
    save(tmp_path / "a.png", np.full((70, 80), 9, np.uint8))
    save(tmp_path / "b.png", np.full((70, 81), 9, np.uint8))
    dataset = load_dataset(tmp_path, COLOUR)
    assert len(dataset.images) == 1
    assert "too large: 81x70 pixels; expected at most 5,600 pixels" in dataset.skipped[0]


def test_a_postscript_file_in_disguise_is_not_opened(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n")
    with pytest.raises(DataError, match=r"none of its 1 image files can be used.*expected the con"):
        load_dataset(tmp_path, COLOUR)


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    save(tmp_path / "a.png", NOISE[0])
    (tmp_path / "._a.png").write_bytes(b"AppleDouble")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    save(tmp_path / ".thumbnails" / "b.png", NOISE[1])
    dataset = load_dataset(tmp_path, COLOUR)
    assert (len(dataset.images), dataset.skipped) == (1, ())


def test_a_hidden_folder_may_be_the_source(tmp_path):
    save(tmp_path / ".cache" / "b.png", NOISE[1])
    np.testing.assert_array_equal(one_image(tmp_path / ".cache"), NOISE[1])


def test_links_are_followed_but_not_in_circles(tmp_path):
    save(tmp_path / "data" / "a.png", NOISE[0])
    save(tmp_path / "elsewhere" / "b.png", NOISE[1])
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "once more").symlink_to(tmp_path / "elsewhere")
    images = load_dataset(tmp_path / "data", COLOUR).images
    np.testing.assert_array_equal(images, NOISE[:2])


def test_all_bad_is_an_error_that_names_files(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"none of its 5 image files can be used.*0\.jpg: unread"):
        load_dataset(tmp_path, COLOUR)


def test_a_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "readme.txt").write_text("")
    with pytest.raises(DataError, match=r"holds no image: 1 files, none .*expected a folder of im"):
        load_dataset(tmp_path, COLOUR)


def test_more_than_memory_allows_is_refused(tmp_path, monkeypatch):
    save(tmp_path / "a.png", NOISE[0])
    save(tmp_path / "b.png", NOISE[0])
    monkeypatch.setattr("shared.data.dataset.MAXIMUM_BYTES", 2 * 64 * 64 * 3 - 1)
    with pytest.raises(DataError, match=r"holds 2 images, which take 0\.0 GiB.*at most"):
        load_dataset(tmp_path, COLOUR)


def test_many_files_come_in_order(tmp_path):
    for i in range(150):  # more than the chunks of all threads
        save(tmp_path / f"{i:03}.png", np.full((64, 64), i, np.uint8))
    images = load_dataset(tmp_path, GREY).images
    np.testing.assert_array_equal(images[:, 5, 5, 0], np.arange(150))


# --- what is not a data set ------------------------------------------------------------------


def test_a_single_picture_is_an_error_that_says_what_to_give(tmp_path):
    path = save(tmp_path / "a.JPG", NOISE[0], format="JPEG")
    with pytest.raises(DataError, match=rf"a\.JPG is a single image; give the folder: {tmp_path}"):
        load_dataset(path, COLOUR)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere", None, r"nowhere does not exist; expected a folder"),
        ("a.txt", b"hello", r"a\.txt is none of what can be loaded; expected a folder .*\.npz"),
        ("empty", b"", r"empty is none of what can be loaded"),
        ("a.npy", b"\x93NUMPY", r"a\.npy is none of what can be loaded"),
    ],
)
def test_anything_else_is_an_error_that_lists_what_is_accepted(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path / name, COLOUR)


def test_odd_paths_are_errors(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is not a regular file"):
        load_dataset(tmp_path / "pipe", COLOUR)
    with pytest.raises(DataError, match="the path is empty"):
        load_dataset("", COLOUR)
    with pytest.raises(DataError, match="does not exist"):
        load_dataset("a\0b", COLOUR)


# --- IDX -------------------------------------------------------------------------------------


def idx(pixels: np.ndarray) -> bytes:
    """An IDX file after the description at yann.lecun.com/exdb/mnist."""
    return (
        bytes([0, 0, 8, pixels.ndim])
        + b"".join(size.to_bytes(4, "big") for size in pixels.shape)
        + pixels.tobytes()
    )


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
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(path, COLOUR)
    assert str(caught.value).startswith(str(path))


def test_many_tiny_idx_images_do_not_fill_the_memory(tmp_path):
    (tmp_path / "a-idx3-ubyte").write_bytes(idx(np.zeros((400_000, 1, 1), np.uint8)))
    with pytest.raises(DataError, match=r"400,000 images, which take 4\.6 GiB .*at most 4 GiB"):
        load_dataset(tmp_path / "a-idx3-ubyte", COLOUR)


def test_a_narrow_idx_image_does_not_fill_the_memory(tmp_path):
    (tmp_path / "a-idx3-ubyte").write_bytes(idx(np.zeros((1, 1, 20_000), np.uint8)))
    with pytest.raises(DataError, match=r"a-idx3-ubyte: too narrow: 20000x1 pixels"):
        load_dataset(tmp_path / "a-idx3-ubyte", COLOUR)


@pytest.mark.parametrize("cut", [3, 11, 500, -9, -1])
def test_a_truncated_gz_is_an_error(tmp_path, cut):
    path = tmp_path / "a-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(NOISE[..., 0]))[:cut])
    with pytest.raises(DataError, match=r"a-idx3-ubyte\.gz is cut off: its gzip stream has no end"):
        load_dataset(path, COLOUR)


def test_a_gz_with_a_wrong_checksum_is_an_error(tmp_path):
    content = bytearray(gzip.compress(idx(NOISE[..., 0])))
    content[-8] ^= 1
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.gz cannot be read: CRC check failed"):
        load_dataset(tmp_path / "a.gz", COLOUR)


def test_a_gz_bomb_is_not_unpacked(tmp_path):
    header = idx(np.zeros((2, 28, 28), np.uint8))
    packer, path = zlib.compressobj(1, zlib.DEFLATED, 31), tmp_path / "a-idx3-ubyte.gz"
    zeros = bytes(2**20)
    pieces = [packer.compress(header), *(packer.compress(zeros) for _ in range(100))]
    path.write_bytes(b"".join(pieces) + packer.flush())
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="declares 1,568 bytes of pixels, found more"):
            load_dataset(path, COLOUR)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


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
    with pytest.raises(DataError, match=r"holds several IDX files: .*a/train.*b/train.*; give one"):
        load_dataset(tmp_path, GREY)


# --- npz -------------------------------------------------------------------------------------


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
        ({"a": NOISE, "b": NOISE}, r"not exactly one of 3 or 4 .*a \(5, 64, 64, 3\), b \(5, 64"),
        ({"a": np.zeros(3)}, r"arrays: a \(3,\)"),
        ({}, "arrays: none"),
        ({"images": np.zeros(2, [("x", "u1")])}, "has dtype"),
    ],
)
def test_bad_npz_arrays_are_errors(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
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
    with pytest.raises(DataError, match=r"images\.npy holds Python objects, which are never unpi"):
        load_dataset(tmp_path / "a.npz", COLOUR)
    np.savez(tmp_path / "a.npz", other=objects, labels=np.arange(2))
    with pytest.raises(
        DataError, match=r"other\.npy holds Python objects, which are never unpickled"
    ):
        load_dataset(tmp_path / "a.npz", COLOUR)
    assert not payload.path.exists()


def npy(shape: str, data: bytes = b"", descr: str = "|u1", version: bytes = b"\x01\x00") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    size = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + version + size + header + data


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy("(100000, 1000, 1000)"), r"declares .*93\.1 GiB; expected at most 4 GiB"),
        (npy("(2, 8, 8)", bytes(127)), "declares 128 bytes of pixels, found only 127"),
        (npy("(2, 8, 8)", bytes(129)), "declares 128 bytes of pixels, found more"),
        (npy("(2, -8, 8)", bytes(128)), r"shape \(2, -8, 8\)"),
        (npy("(2, 8.0, 8)", bytes(128)), "is damaged .*shape is not valid"),
        (npy("(2, 8, 8)", bytes(128), version=b"\x02\x00"), r"format \(2, 0\); expected \(1, 0\)"),
        (npy("(2, 8, 8)", bytes(128), descr="\\d"), "is damaged"),
        (npy("(" + "-" * 9000 + "1,)"), "nested too deep|is damaged"),
        (npy("(" * 4000 + ")" * 4000), "nested too deep|is damaged"),
        (npy("(2L, 8L, 8L)", bytes(129)), "found more|is damaged"),  # Python 2 wrote such numbers
        (b"\x93NUMPX  ", "is damaged or no .npz file: the magic string is not correct"),
        (b"", "is damaged or no .npz file"),
    ],
)
def test_bad_npz_members_are_errors(tmp_path, member, message):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", member)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path / "a.npz", COLOUR)


def test_an_npz_bomb_is_not_unpacked(tmp_path):
    bomb = npy("(2, 8, 8)") + bytes(100 * 2**20)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("images.npy", bomb)
    del bomb
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="declares 128 bytes of pixels, found more"):
            load_dataset(tmp_path / "a.npz", COLOUR)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_an_archive_whose_directory_lies_fills_no_memory(tmp_path):
    member = npy("(1, 32768, 32768)")
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", member)
    content = (tmp_path / "a.npz").read_bytes()
    honest, lying = (struct.pack("<I", size) for size in (len(member), len(member) + 2**30))
    assert content.count(honest) == 2  # beside the member, and in the directory
    (tmp_path / "a.npz").write_bytes(content.replace(honest, lying))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"declares 1,073,741,824 bytes of pixels, found only"):
            load_dataset(tmp_path / "a.npz", COLOUR)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_an_idx_header_that_lies_fills_no_memory(tmp_path):
    content = b"\0\0\x08\x03" + struct.pack(">3I", 1, 32768, 32768) + b"x"
    for name, packed in (("a-idx3-ubyte", content), ("a-idx3-ubyte.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(packed)
        tracemalloc.start()
        try:
            with pytest.raises(DataError, match="declares 1,073,741,824 bytes of pixels, found on"):
                load_dataset(tmp_path / name, COLOUR)
            assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(3), b"nonsense" * 99]
)
def test_what_is_no_zip_is_an_error(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz is damaged or no \.npz file"):
        load_dataset(tmp_path / "a.npz", COLOUR)


# --- damage of any kind: a data set of the right shape, or a DataError ------------------------


def npz_bytes(save_npz) -> bytes:
    buffer = io.BytesIO()
    save_npz(buffer, images=NOISE[:2, :8, :8], labels=np.arange(2))
    return buffer.getvalue()


INTACT = {
    "a-idx3-ubyte.gz": gzip.compress(idx(NOISE[:2, :9, :9, 0]), mtime=0),
    "a-idx3-ubyte": idx(NOISE[:2, :9, :9, 0]),
    "a.npz": npz_bytes(np.savez_compressed),
    "b.npz": npz_bytes(np.savez),
    "a.npz member": npy("(2, 8, 8)", bytes(128)),
}
DAMAGE = st.tuples(
    st.one_of(st.none(), st.floats(0, 1)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=4),
)


@pytest.mark.parametrize("name", INTACT)
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(damage=DAMAGE)
def test_damaged_files_load_or_raise_dataerror(tmp_path, name, damage):
    cut, flips = damage
    content = bytearray(INTACT[name])
    if cut is not None:
        del content[int(cut * len(content)) :]
    for place, bits in flips:
        if content:
            content[int(place * len(content))] ^= bits
    path = tmp_path / name.split()[0]
    path.write_bytes(content)
    if name.endswith(" member"):  # damage that the archive's checksum does not tell
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", content)
    with contextlib.suppress(DataError):
        dataset = load_dataset(path, GREY)
        assert dataset.images.shape[1:] == GREY.image_shape
        assert dataset.images.dtype == np.uint8


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "gif", "webp", "bmp"])
def test_damaged_pictures_load_or_are_skipped(tmp_path, suffix):
    draw = np.random.default_rng(5)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    options = {} if suffix in ("gif", "bmp") else {"exif": exif}
    Image.fromarray(NOISE[0, :20, :24]).save(buffer, {"jpg": "jpeg"}.get(suffix, suffix), **options)
    save(tmp_path / "0.png", NOISE[0])
    for i in range(60):
        content = bytearray(buffer.getvalue())
        for place in draw.integers(0, min(len(content), 400), draw.integers(1, 6)):
            content[place] ^= draw.integers(1, 256)
        (tmp_path / f"{i:02}.{suffix}").write_bytes(content)
    dataset = load_dataset(tmp_path, COLOUR)
    assert len(dataset.images) + len(dataset.skipped) == 61
    np.testing.assert_array_equal(dataset.images[0], NOISE[0])


# --- scaling ---------------------------------------------------------------------------------

LEVELS = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spec", [COLOUR, UNIT], ids=["-1..1", "0..1"])
def test_scaling_is_exact_and_has_an_inverse(spec, dtype):
    low, high = spec.image_range
    scaled = to_image_range(LEVELS, spec, dtype)
    assert scaled.dtype == dtype
    assert (scaled[0], scaled[255]) == (low, high)
    # Two roundings of numbers up to `high - low`: at most one unit of the last place of 1.
    expected = [low + (high - low) * level / 255 for level in range(256)]
    np.testing.assert_allclose(scaled, expected, rtol=0, atol=np.finfo(dtype).eps)
    back = to_pixels(scaled, spec.image_range)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, LEVELS)


def test_scaling_is_done_in_the_dtype():
    single = np.float32(100) / np.float32(255) * np.float32(2) + np.float32(-1)
    assert to_image_range(np.array([100], np.uint8), COLOUR)[0] == single
    assert to_image_range(np.array([100], np.uint8), COLOUR, "float64")[0] == 100 / 255 * 2 - 1


def test_pixels_are_rounded_and_clipped():
    values = np.array([-5, -1, -0.0001, 0.0001, 1, 1.2, np.inf, -np.inf, np.nan], np.float32)
    assert to_pixels(values, COLOUR.image_range).tolist() == [0, 0, 127, 128, 255, 255, 255, 0, 0]
    assert to_pixels(np.array([[0.5 / 255 + 1e-6]]), UNIT.image_range).tolist() == [[1]]


def test_scaling_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="expected uint8 pixels, received float32"):
        to_image_range(np.zeros(3, np.float32), COLOUR)
    with pytest.raises(ValueError, match="dtype must be float32 or float64, received 'float16'"):
        to_image_range(LEVELS, COLOUR, "float16")


# --- batches ---------------------------------------------------------------------------------


def numbered(count: int) -> np.ndarray:
    """Images that carry their number in the first pixel's first channel."""
    images = np.zeros((count, *COLOUR.image_shape), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return images


def numbers(batch: np.ndarray) -> list[int]:
    return to_pixels(batch, COLOUR.image_range)[:, 0, 0, 0].tolist()


def of_size(batch_size: int) -> SystemSpec:
    return COLOUR.replace(batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 7, 10, 22, 23])
def test_an_epoch_visits_each_image_once_but_for_the_tail(batch_size):
    batches = Batches(numbered(23), of_size(batch_size), seed=3)
    assert batches.batches_per_epoch == 23 // batch_size
    epochs = []
    for epoch in range(3):
        first = epoch * batches.batches_per_epoch
        steps = range(first, first + batches.batches_per_epoch)
        epochs.append([number for step in steps for number in numbers(batches.images(step))])
    for epoch, seen in enumerate(epochs):
        assert seen == batch_order(3, epoch, 23)[: 23 // batch_size * batch_size].tolist()
        assert len(set(seen)) == 23 // batch_size * batch_size
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_a_batch_depends_on_seed_and_step_alone():
    images = numbered(50)
    used = Batches(images, of_size(8), seed=11)
    for step in (0, 5, 6, 7, 1300, 2):
        used.images(step)
    fresh = Batches(images, of_size(8), seed=11)
    np.testing.assert_array_equal(used.images(1234), fresh.images(1234))
    other = Batches(images, of_size(8), seed=12)
    assert numbers(other.images(1234)) != numbers(fresh.images(1234))


@pytest.mark.parametrize("k", [2, 3, 5, 9])
def test_a_step_of_several_updates_takes_the_next_batches_of_the_same_order(k):
    single = Batches(numbered(23), of_size(5), seed=3)  # four batches an epoch
    several = Batches(numbered(23), of_size(5).replace(discriminator_steps=k), seed=3)
    for step in (0, 1, 2, 7, 3):  # one epoch's last batches and the next one's first, and back
        batches = [single.images(step * k + i) for i in range(k)]
        images = several.images(step)
        assert images.shape == (k * 5, 64, 64, 3)
        assert images.flags.c_contiguous
        np.testing.assert_array_equal(images, np.concatenate(batches))
    flat = [number for step in range(4) for number in numbers(several.images(step))]
    orders = [batch_order(3, epoch, 23)[:20] for epoch in range(9)]
    assert flat == np.concatenate(orders)[: 4 * k * 5].tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_batch_is_contiguous_in_range_and_new(dtype):
    batches = Batches(NOISE, of_size(4), 0, dtype)
    batch = batches.images(0)
    assert batch.shape == (4, 64, 64, 3)
    assert batch.dtype == dtype
    assert batch.flags.c_contiguous
    chosen = NOISE[batch_order(0, 0, 5)[:4]].astype(dtype)
    np.testing.assert_array_equal(batch, chosen / 255 * 2 - 1)
    expected = batch.copy()
    batch[:] = 9
    np.testing.assert_array_equal(batches.images(0), expected)


def test_fortran_ordered_images_give_contiguous_batches():
    images = np.asfortranarray(NOISE)
    batch = Batches(images, of_size(2), 0).images(0)
    assert batch.flags.c_contiguous
    np.testing.assert_array_equal(batch, Batches(NOISE, of_size(2), 0).images(0))


def test_a_batch_larger_than_the_data_set_is_an_error():
    message = r"batch size is 128, .* holds only 5 images; use --batch-size 5 or less"
    with pytest.raises(DataError, match=message):
        Batches(NOISE, of_size(128), 0)


def test_batches_refuse_what_does_not_suit():
    with pytest.raises(DataError, match=r"uint8 \(5, 64, 64, 1\).* expects uint8 \[n, 64, 64, 3\]"):
        Batches(NOISE[..., :1], of_size(2), 0)
    with pytest.raises(DataError, match=r"the images are float64"):
        Batches(NOISE / 255, of_size(2), 0)
    for batch_size in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, re"):
            of_size(batch_size)
    with pytest.raises(ValueError, match="seed must be between"):
        Batches(NOISE, of_size(2), -1)
    with pytest.raises(ValueError, match="dtype must be float32 or float64"):
        Batches(NOISE, of_size(2), 0, "int8")
    with pytest.raises(ValueError, match="step must not be negative, received -1"):
        Batches(NOISE, of_size(2), 0).images(-1)


# --- at large --------------------------------------------------------------------------------


def test_a_data_set_cannot_be_rebound():
    with pytest.raises(AttributeError):
        ImageDataset(NOISE, "noise").images = NOISE[:1]


def test_the_filters_of_warnings_are_left_as_they_were(tmp_path):
    save(tmp_path / "a.png", NOISE[0])
    before = list(warnings.filters)
    load_dataset(tmp_path, COLOUR)
    assert warnings.filters == before
