"""Data that lie about their size fill no memory; damaged ones load, or raise a InputError."""

import contextlib
import gzip
import io
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from shared.data import images as image_files
from shared.data.dataset import load_dataset
from shared.files.errors import InputError
from tests.data.made_images import COLOUR, GREY, NOISE, idx, npy, save

# --- pictures of a great size ----------------------------------------------------------------


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
    with pytest.raises(InputError, match=reason):
        load_dataset(tmp_path, COLOUR)


def test_the_largest_allowed_picture_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MAXIMUM_PIXELS", 70 * 80)
    save(tmp_path / "a.png", np.full((70, 80), 9, np.uint8))
    save(tmp_path / "b.png", np.full((70, 81), 9, np.uint8))
    dataset = load_dataset(tmp_path, COLOUR)
    assert len(dataset.images) == 1
    assert "too large: 81x70 pixels; expected at most 5,600 pixels" in dataset.skipped[0]


def test_more_than_memory_allows_is_refused(tmp_path, monkeypatch):
    save(tmp_path / "a.png", NOISE[0])
    save(tmp_path / "b.png", NOISE[0])
    monkeypatch.setattr("shared.data.images.MAXIMUM_BYTES", 2 * 64 * 64 * 3 - 1)
    with pytest.raises(
        InputError, match=r"holds 2 images of the system.s size, 0\.0 GiB; expected at most"
    ):
        load_dataset(tmp_path, COLOUR)


# --- arrays of a great size ------------------------------------------------------------------


def test_many_tiny_idx_images_do_not_fill_the_memory(tmp_path):
    (tmp_path / "a-idx3-ubyte").write_bytes(idx(np.zeros((400_000, 1, 1), np.uint8)))
    with pytest.raises(
        InputError, match=r"400,000 images of the system.s size, 4\.6 GiB; expected at most 4"
    ):
        load_dataset(tmp_path / "a-idx3-ubyte", COLOUR)


def test_a_narrow_idx_image_does_not_fill_the_memory(tmp_path):
    (tmp_path / "a-idx3-ubyte").write_bytes(idx(np.zeros((1, 1, 20_000), np.uint8)))
    with pytest.raises(InputError, match=r"a-idx3-ubyte: too narrow: 20000x1 pixels"):
        load_dataset(tmp_path / "a-idx3-ubyte", COLOUR)


def test_a_gz_bomb_is_not_unpacked(tmp_path):
    header = idx(np.zeros((2, 28, 28), np.uint8))
    packer, path = zlib.compressobj(1, zlib.DEFLATED, 31), tmp_path / "a-idx3-ubyte.gz"
    zeros = bytes(2**20)
    pieces = [packer.compress(header), *(packer.compress(zeros) for _ in range(100))]
    path.write_bytes(b"".join(pieces) + packer.flush())
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="declares 1,568 bytes of pixels, found more"):
            load_dataset(path, COLOUR)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_an_npz_bomb_is_not_unpacked(tmp_path):
    bomb = npy("(2, 8, 8)") + bytes(100 * 2**20)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("images.npy", bomb)
    del bomb
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="declares 128 bytes of pixels, found more"):
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
        with pytest.raises(InputError, match=r"declares 1,073,741,824 bytes of pixels, found only"):
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
            with pytest.raises(
                InputError, match="declares 1,073,741,824 bytes of pixels, found on"
            ):
                load_dataset(tmp_path / name, COLOUR)
            assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
        finally:
            tracemalloc.stop()


# --- damage of any kind: a data set of the right shape, or a InputError -----------------------


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
    with contextlib.suppress(InputError):
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
