"""Arrays, pictures and checkpoints: faults that the fuzzer found or was written to find.

Each with its smallest input, which is refused by one printable line that names the file, at once
and without the memory that it asks for.
"""

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shared.data import images as image_files
from shared.data.dataset import load_dataset
from shared.files.checkpoint import read_checkpoint, write_checkpoint
from shared.files.errors import MAXIMUM_MESSAGE, InputError, one_line, printable
from shared.fixtures.network import representative_state
from shared.spec import SYSTEMS
from tests.apparatus.fuzz.archives import lzma_that_asks_for_memory, zip_of
from tests.apparatus.fuzz.readers.images import with_scans
from tests.apparatus.fuzz.readers.npz import npy
from tests.apparatus.fuzz.readers.safetensors_files import parts, with_header
from tests.files.refusal import DEEP, DIGITS, SPEC, refused

GREY = SYSTEMS["conv28"]


# --- messages --------------------------------------------------------------------------------


def test_a_message_is_one_line_that_a_terminal_takes() -> None:
    text = one_line("a\nb\x1b[31m\u202e\udcff\u2028é🎨 " + "x" * 10**6)
    assert text.startswith("a b\\x1b[31m\\u202e\\udcff é🎨 x")
    assert (len(text), text[-2:]) == (MAXIMUM_MESSAGE, " …")
    assert one_line("short") == "short"
    assert printable("a\nb/ü 🎨") == "a\\nb/ü 🎨"


@pytest.mark.parametrize("name", ["new\nline", "\x1b[31mred", "caf\udce9"])
def test_an_odd_name_stays_on_its_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.npz"
    path.write_bytes(b"PK\x03\x04")
    shown = re.escape(printable(path.name.replace("\n", " ")))  # a message is one line
    with refused(InputError, shown):
        load_dataset(path, GREY)
    with refused(InputError, shown):
        read_checkpoint(path)


# --- arrays and pictures ---------------------------------------------------------------------


def test_a_member_that_only_lzma_unpacks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(lzma_that_asks_for_memory("images.npy"))
    with refused(InputError, r"a\.npz: images\.npy is packed by another method; expected stored"):
        load_dataset(tmp_path / "a.npz", GREY)


def test_a_shape_of_very_many_digits_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(zip_of({"images.npy": npy(f"({'9' * 4000}, 1, 1)", b"")}))
    with refused(InputError, r"a\.npz"):
        load_dataset(tmp_path / "a.npz", GREY)


def test_a_jpeg_of_very_many_scans_is_refused(tmp_path: Path) -> None:
    """Measured: 64 million pixels in 300 scans took 25 seconds."""
    for count, name in ((90, "few"), (10_000, "many")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(with_scans(count))
    assert load_dataset(tmp_path / "few", GREY).skipped == ()
    with refused(InputError, r"many: none .* too many scans; expected a JPEG of at most 100"):
        load_dataset(tmp_path / "many", GREY)


def test_large_pictures_are_decoded_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight of 64 million pixels at once would take eight gigabytes."""
    monkeypatch.setattr(image_files, "LARGE_PIXELS", 99)
    for i in range(100):
        Image.new("RGB", (10, 10)).save(tmp_path / f"{i:03}.png")
    decode, running, most = image_files.resize_and_crop, threading.Semaphore(0), []

    def counted(image: Image.Image, size: int) -> Image.Image:
        running.release()
        most.append(running._value)
        time.sleep(0.001)
        result = decode(image, size)
        running.acquire()
        return result

    monkeypatch.setattr(image_files, "resize_and_crop", counted)
    assert len(load_dataset(tmp_path, GREY).images) == 100
    assert max(most) == 1
    monkeypatch.setattr(image_files, "LARGE_PIXELS", 100)
    most.clear()
    load_dataset(tmp_path, GREY)
    assert max(most) > 1


# --- checkpoints -----------------------------------------------------------------------------


def checkpoint(path: Path, **fields: str) -> Path:
    """Write a checkpoint with other texts in its header."""
    write_checkpoint(path, representative_state(SPEC, 0), SPEC, progress={"step": 1})
    header, data = parts(path.read_bytes())
    header["__metadata__"] |= fields
    path.write_bytes(with_header(header, data))
    return path


@pytest.mark.parametrize("field", ["spec", "progress"])
@pytest.mark.parametrize("text", [DEEP, f'{{"step": {DIGITS}}}', '{"a":' * 100_000])
def test_json_that_python_cannot_take(tmp_path: Path, field: str, text: str) -> None:
    path = checkpoint(tmp_path / "a.safetensors", **{field: text})
    with refused(InputError, rf"a\.safetensors: expected .*{field} as JSON in the header"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 2**40}, "width: 1099511627776 is greater than the maximum of 1048576"),
        ({"image_range": "ab"}, "image_range: 'ab' is not of type 'array'"),
        ({"image_range": [1.0, -1.0]}, "image_range needs its lower end first"),
        ({"image_range": [1.0]}, "image_range: .* is too short"),
        ({"image_range": [0.0, float("nan")]}, r"image_range\[1\]: nan is not of type 'number'"),
        ({"latent_distribution": "cauchy"}, "latent_distribution: 'cauchy' is not one of"),
        ({"name": "\x1b[31mred\n"}, "a printable name"),
        ({"name": 3}, "name: 3 is not of type 'string'"),
        ({"generator_optimizer": {}}, r"expected .*'generator_optimizer.beta1'.*, received"),
        ({"generator_optimizer": {"learning_rate": "fast"}}, "'fast' is not of type 'number'"),
        ({"generator_optimizer": {"epsilon": float("inf")}}, "inf is not of type 'number'"),
    ],
)
def test_a_spec_that_is_no_spec(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    spec = SPEC.to_dict()
    adam = spec["generator_optimizer"]
    spec |= change
    if change.get("generator_optimizer"):
        spec["generator_optimizer"] = adam | change["generator_optimizer"]
    path = checkpoint(tmp_path / "a.safetensors", spec=json.dumps(spec))
    with refused(InputError, rf"a\.safetensors: expected a valid spec as JSON.*{message}"):
        read_checkpoint(path)


@pytest.mark.parametrize("shape", [[2**63, 0], [2**62, 2, 0], [1] * 70 + [0]])
def test_a_shape_of_nothing_that_numpy_refuses(tmp_path: Path, shape: list[int]) -> None:
    path = checkpoint(tmp_path / "a.safetensors")
    header, data = parts(path.read_bytes())
    header["extra"] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data)]}
    path.write_bytes(with_header(header, data))
    with refused(InputError, r"a\.safetensors: "):
        read_checkpoint(path)
