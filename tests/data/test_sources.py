"""What a path may name: the default, folders with good and bad files, and what is refused."""

import gzip
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.data.dataset import FASHION_MNIST, ImageDataset, load_dataset
from shared.files.errors import InputError
from tests.data.made_images import COLOUR, GREY, NOISE, flat, one_image, save, triangle_weights

# --- the embedded default --------------------------------------------------------------------


def test_the_default_is_fashion_mnist():
    dataset = load_dataset(None, COLOUR)
    assert dataset.description == "2,000 Fashion-MNIST images"
    assert dataset.skipped == ()
    assert dataset.images.shape == (2000, 64, 64, 3)
    assert dataset.images.dtype == np.uint8
    np.testing.assert_array_equal(dataset.images[..., 0], dataset.images[..., 2])
    assert (dataset.images.min(), dataset.images.max()) == (0, 255)
    with gzip.open(FASHION_MNIST) as file:
        clothes = np.frombuffer(file.read()[16:], np.uint8).reshape(2000, 28, 28).astype(float)
    expected = triangle_weights(28, 64) @ clothes @ triangle_weights(28, 64).T
    np.testing.assert_allclose(dataset.images[..., 0], expected, atol=1.01)


# --- folders of pictures ---------------------------------------------------------------------


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


def test_a_postscript_file_in_disguise_is_not_opened(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n")
    with pytest.raises(
        InputError, match=r"none of its 1 image files can be used.*expected the con"
    ):
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
    with pytest.raises(InputError, match=r"none of its 5 image files can be used.*0\.jpg: unread"):
        load_dataset(tmp_path, COLOUR)


def test_a_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "readme.txt").write_text("")
    with pytest.raises(
        InputError, match=r"holds no image: 1 files, none .*expected a folder of im"
    ):
        load_dataset(tmp_path, COLOUR)


def test_many_files_come_in_order(tmp_path):
    for i in range(150):  # more than the chunks of all threads
        save(tmp_path / f"{i:03}.png", np.full((64, 64), i, np.uint8))
    images = load_dataset(tmp_path, GREY).images
    np.testing.assert_array_equal(images[:, 5, 5, 0], np.arange(150))


# --- what is not a data set ------------------------------------------------------------------


def test_a_single_picture_is_an_error_that_says_what_to_give(tmp_path):
    path = save(tmp_path / "a.JPG", NOISE[0], format="JPEG")
    with pytest.raises(InputError, match=rf"a\.JPG is a single image; give the folder: {tmp_path}"):
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
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path / name, COLOUR)


def test_odd_paths_are_errors(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is not a regular file"):
        load_dataset(tmp_path / "pipe", COLOUR)
    with pytest.raises(InputError, match="the path is empty"):
        load_dataset("", COLOUR)
    with pytest.raises(InputError, match="does not exist"):
        load_dataset("a\0b", COLOUR)


# --- at large --------------------------------------------------------------------------------


def test_a_data_set_cannot_be_rebound():
    with pytest.raises(AttributeError):
        ImageDataset(NOISE, "noise").images = NOISE[:1]


def test_the_filters_of_warnings_are_left_as_they_were(tmp_path):
    save(tmp_path / "a.png", NOISE[0])
    before = list(warnings.filters)
    load_dataset(tmp_path, COLOUR)
    assert warnings.filters == before


@pytest.mark.parametrize(
    ("size", "mode", "spec", "expected"),
    [
        ((96, 96), "RGB", COLOUR, "96x96 colour → 64x64 colour"),
        ((120, 96), "P", GREY, "120x96 colour → 64x64 grey, cropped to the centre"),
        ((8, 9), "L", COLOUR, "8x9 grey → 64x64 colour, cropped to the centre"),
    ],
)
def test_what_becomes_of_the_pictures_is_reported(tmp_path, size, mode, spec, expected):
    (tmp_path / "a broken one.png").write_bytes(b"no picture")
    Image.new(mode, size).save(tmp_path / "b.png")
    assert load_dataset(tmp_path, spec).notes == (f"{expected} (as the first, b.png)",)


def test_what_a_folder_holds_beside_its_pictures_is_reported(tmp_path):
    for name in ("cats", "dogs"):
        save(tmp_path / name / "1.png", flat([1, 2, 3]))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"")
    dataset = load_dataset(tmp_path, COLOUR)
    assert dataset.notes[1:] == (
        "of 2 folders together; their names, such as classes, are not used",
        "beside pictures train-images-idx3-ubyte.gz is not read; --data can name it",
    )
    assert len(dataset.images) == 2
