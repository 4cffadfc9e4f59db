"""CIFAR-10's python batches: `load_dataset` on a file and on a folder of them."""

import pickle
from pathlib import Path
from random import Random

import numpy as np

from shared.data.dataset import load_dataset
from shared.files.errors import InputError
from shared.spec import SYSTEMS
from tests.apparatus.fuzz import pickles
from tests.apparatus.fuzz.places import Files
from tests.apparatus.fuzz.reader import Reader

_SPEC = SYSTEMS["dcgan64"]


def batch_of_python_2(images: np.ndarray) -> bytes:
    """Return a batch byte for byte as Python 2 wrote CIFAR-10's, written out by hand.

    `images`: uint8 [n, 3072], n below 256.
    """
    data = images.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04("
        b"K\x01K"
        + bytes([len(images)])
        + b"M\x00\x0c\x86cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87R"
        b"q\x06(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + len(data).to_bytes(4, "little")
        + data
        + b"tb"
    )
    labels = b"]q\x07(" + b"".join(b"K" + bytes([i % 10]) for i in range(len(images))) + b"e"
    return (
        b"\x80\x02}q\x01(U\x04data" + array + b"U\x06labels" + labels
        + b"U\x0bbatch_labelU\x15training batch 1 of 5u."
    )  # fmt: skip


def _samples() -> list[bytes]:
    noise = np.random.default_rng(6).integers(0, 256, (4, 3072), dtype=np.uint8)
    names = [f"a_{i}.png" for i in range(4)]
    batch = {b"data": noise, b"labels": [1, 2, 3, 4], b"filenames": names, b"fine": (None, True)}
    again = [pickle.dumps(batch, protocol=protocol) for protocol in (3, 4)]
    return [batch_of_python_2(noise), *again]


def other_instructions(draw: Random) -> bytes:
    return pickles.without_instruction(draw, draw.choice(_FILES.samples))


def forged_dtype(draw: Random) -> bytes:
    """An array of addresses that says it is one of bytes, or the other way round."""
    content = _FILES.samples[0]
    kind = draw.choice((b"O8", b"O\0", b"u8", b"V1", b"b1", b"S1"))
    return content.replace(b"U\x02u1", b"U\x02" + kind).replace(
        b"K\x00tb\x89", draw.choice((b"K\x3ftb\x89", b"K\x00tb\x88"))
    )


def other_values(draw: Random) -> bytes:
    odd = (None, 3, "data", [], {}, np.zeros((2, 3072)), np.zeros((2, 7), np.uint8), [1] * 5)
    arrays = (np.zeros((0, 3072), np.uint8), np.array([None]), np.zeros(3072, np.uint8))
    value = draw.choice((*odd, *arrays))
    batch = draw.choice((value, {"data": value}, {b"data": value, 3: value}, [value]))
    return pickle.dumps(batch, protocol=draw.choice((0, 1, 2, 3, 4, 5)))


_FILES = Files(
    ("data_batch_1", "data_batch_2", ".bin"),
    _samples,
    (
        other_instructions,
        other_instructions,
        other_instructions,
        forged_dtype,
        other_values,
        pickles.running_code,
        pickles.running_code_by_a_dotted_name,
        pickles.filling_memory,
        pickles.deeply_nested,
        pickles.quadratic,
    ),
    share=0.6,
    stems=(b"", b"", b"odd name "),
)


def read(path: Path) -> None:
    images = load_dataset(path, _SPEC).images
    assert images.shape[1:] == _SPEC.image_shape
    assert images.dtype == np.uint8
    assert len(images) >= 1


READER = Reader("cifar", _FILES.make, read, (InputError,), prepare=_FILES.prepared(read))
