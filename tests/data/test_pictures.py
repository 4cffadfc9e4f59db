"""Single pictures: size, orientation and mode; every expected number has a source of its own."""

import numpy as np
import pytest
from PIL import Image

from shared.data import images as image_files
from shared.data.dataset import load_dataset
from tests.data.made_images import COLOUR, GREY, NOISE, flat, one_image, save, triangle_weights

# --- size ------------------------------------------------------------------------------------


def test_pictures_of_the_right_size_pass_unchanged(tmp_path):
    save(tmp_path / "a.png", NOISE[0])
    np.testing.assert_array_equal(one_image(tmp_path), NOISE[0])


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


# --- orientation -----------------------------------------------------------------------------

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


# --- colour ----------------------------------------------------------------------------------

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
