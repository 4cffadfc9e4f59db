""".npz files: `shared.data.dataset.load_dataset` on a file."""

import io
import zipfile
from pathlib import Path
from random import Random

import numpy as np

from shared.data.dataset import load_dataset
from shared.files.errors import InputError
from shared.spec import SYSTEMS
from tests.apparatus.fuzz.archives import (
    lzma_that_asks_for_memory,
    zip_of,
    zip_of_zeros,
    zip_that_lies,
)
from tests.apparatus.fuzz.mutators import mutated
from tests.apparatus.fuzz.pickles import running_code
from tests.apparatus.fuzz.places import Files
from tests.apparatus.fuzz.reader import Reader

_SPEC = SYSTEMS["conv28"]
_SHAPES = (
    *(
        "(1, 28, 28)",
        "(0, 28, 28)",
        "(1, 28, 28, 1)",
        "(1, 1, 28, 28)",
        "(28,)",
        "()",
        "(1,28,28,3)",
    ),
    *(
        "(-1, 28, 28)",
        "(1, 2**31, 28)",
        f"({2**62}, {2**62}, 4)",
        f"({10**300}, 1, 1)",
        "(True, 28, 28)",
    ),
    *(
        f"({'9' * 4000}, 1, 1)",
        "(1.0, 28, 28)",
        "(1, 28, 28",
        "[1, 28, 28]",
        "'abc'",
        "(1, 'a', 3)",
    ),
    *("(" * 3000 + ")" * 3000, "-" * 5000 + "1", "(1, 28, 28)" * 100, "__import__('os')", "{}"),
)
_DTYPES = (
    *("|u1", "|u1", "<f4", ">f8", "<f2", "<f16", "|O", "|b1", "<i8", "<c8", "|V784", "<U9", "|S1"),
    *("<M8[ns]", "", "\\\\d", "u1,u1", "|u1' 'x", "|V0", "|S0", "3u1", "(9999999,)u1"),
)
_NAMES = (
    "images.npy",
    "images.npy",
    "a.npy",
    "../../x.npy",
    "images.npy/x.npy",
    "/etc/x.npy",
    "é.npy",
)


def npy(shape: str, data: bytes, descr: str = "|u1", order: str = "False") -> bytes:
    """Return an .npy of any declared shape and dtype."""
    head = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\0" + (len(head) % 65536).to_bytes(2, "little") + head + data


def _samples() -> list[bytes]:
    noise = np.random.default_rng(5).integers(0, 256, (3, 30, 26), dtype=np.uint8)
    arrays = (noise, noise / 255, np.asfortranarray(noise), np.repeat(noise[..., None], 3, 3))
    made = []
    for save in (np.savez, np.savez_compressed):
        for array in arrays:
            buffer = io.BytesIO()
            save(buffer, images=array, labels=np.arange(3))
            made.append(buffer.getvalue())
    return made


def lying_header(draw: Random) -> bytes:
    member = npy(
        draw.choice(_SHAPES),
        bytes(draw.choice((0, 783, 784, 785, 784 * 8))),
        draw.choice(_DTYPES),
        draw.choice(("False", "True", "None", "1", "[]")),
    )
    return zip_of({draw.choice(_NAMES): member}, draw.choice((0, 8)))


def damaged_member(draw: Random) -> bytes:
    """Damage that the checksums of the archive do not tell."""
    _, member = mutated(
        draw, [npy("(1, 28, 28)", bytes(784)), npy("(1, 28, 28)", bytes(3136), "<f4")]
    )
    return zip_of({draw.choice(_NAMES): member}, draw.choice((0, 8)))


def bomb(draw: Random) -> bytes:
    side = draw.choice((28, 7000, 14481))
    return zip_of_zeros(draw.choice(("images.npy", "a.npy")), npy(f"(1, {side}, {side})", b""))


def other_packing(draw: Random) -> bytes:
    method = draw.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    if draw.random() < 0.5:
        return lzma_that_asks_for_memory("images.npy")
    return zip_of({"images.npy": npy("(1, 28, 28)", bytes(784))}, method)


def lying_archive(draw: Random) -> bytes:
    content = draw.choice(_FILES.samples)
    for _ in range(draw.choice((1, 2, 4))):
        content = zip_that_lies(draw, content)
    return content


def many_members(draw: Random) -> bytes:
    member = npy(draw.choice(("(2,)", "(1, 28, 28)")), b"")
    return zip_of({f"{i}.npy": member for i in range(draw.choice((2, 300)))})


def pickled(draw: Random) -> bytes:
    member = npy("(1, 28, 28)", running_code(draw), "|O")
    return draw.choice((zip_of({"images.npy": member}), running_code(draw)))


_FILES = Files(
    (".npz", ".npz", ".NPZ", ".zip"),
    _samples,
    (
        lying_header,
        lying_header,
        lying_header,
        damaged_member,
        lying_archive,
        lying_archive,
        many_members,
        other_packing,
        pickled,
        bomb,
    ),
    share=0.5,
)


def read(path: Path) -> None:
    images = load_dataset(path, _SPEC).images
    assert images.shape[1:] == _SPEC.image_shape
    assert images.dtype == np.uint8
    assert len(images) >= 1


READER = Reader("npz", _FILES.make, read, (InputError,), prepare=_FILES.prepared(read))
