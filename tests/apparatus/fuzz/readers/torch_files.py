""".pth: `pytorch_impl.native_format.read_native`."""

import functools
import io
import pickle
import tarfile
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from shared.files.errors import InputError
from shared.fixtures.network import representative_state
from shared.formats.native_contents import Contents, part_shapes
from shared.spec import SYSTEMS
from tests.apparatus.fuzz import pickles
from tests.apparatus.fuzz.archives import zip_of, zip_of_zeros, zip_that_lies
from tests.apparatus.fuzz.json_mutators import mutated_document
from tests.apparatus.fuzz.places import Files
from tests.apparatus.fuzz.reader import Reader

SPEC = SYSTEMS["mlp28"].replace(width=1, latent_dim=2, batch_size=2)


def whole_contents() -> Contents:
    """Return a small training state with everything that a file can hold."""
    return Contents(representative_state(SPEC, 0), SPEC, {"step": 7, "seed": 1})


def check_contents(contents: Contents) -> None:
    """Raise AssertionError unless what was read fits its own spec."""
    shapes = {name: array.shape for name, array in contents.arrays.items()}
    assert shapes == part_shapes(contents.spec, contents.parts)
    assert contents.networks
    assert not contents.progress or contents.progress["step"] >= 0


@functools.cache
def _saved() -> dict[str, Any]:
    """Return what torch.save is given for a whole file."""
    import torch

    from pytorch_impl.native_format import write_native

    with tempfile.TemporaryDirectory() as folder:
        write_native(Path(folder, "a.pth"), whole_contents())
        return torch.load(Path(folder, "a.pth"), weights_only=True)


def _bytes(value: Any, *, legacy: bool = False) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _samples() -> list[bytes]:
    bare = _saved()["generator"]
    return [
        _bytes(_saved()),
        _bytes(bare),
        _bytes(_saved(), legacy=True),
        _bytes(bare, legacy=True),
    ]


def other_values(draw: Random) -> bytes:
    """A well-formed file with an odd value in one place."""
    import copy

    saved = copy.deepcopy(_saved())
    holder: Any = saved
    while True:
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = draw.choice(list(keys))
        if not isinstance(holder[key], dict | list) or not holder[key] or draw.random() < 0.2:
            break
        holder = holder[key]
    holder[key] = draw.choice(_odd_values())
    return _bytes(saved, legacy=draw.random() < 0.3)


@functools.cache
def _odd_values() -> list[Any]:
    import torch

    expanded = torch.zeros(1).expand(2**20, 2**12)
    sparse = torch.eye(3).to_sparse()
    made = [None, True, 3, -1, 10**30, 0.5, float("nan"), "text", [], {}, (), [1, 2], {"a": 1}]
    made += [{1: 2}, b"bytes", torch.Size([1]), torch.float32, torch.device("cpu")]
    made += [torch.tensor(x) for x in (float("inf"), -1.0, 1e300, 0.5, 3, True)]
    made += [torch.zeros(s) for s in ((), (0,), (1, 1, 1, 1), (784, 2), (2, 784))]
    made += [torch.zeros(3, dtype=d) for d in (torch.bfloat16, torch.complex64, torch.uint8)]
    made += [expanded, sparse, torch.zeros(3, device="meta"), torch._neg_view(torch.ones(1, 2))]
    made += [sparse.to_sparse_csr(), torch.nn.Parameter(torch.ones(2)), torch.zeros(2, 1).T]
    made += [torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)]
    return made


def lying_archive(draw: Random) -> bytes:
    content = draw.choice(_FILES.samples[:2])
    for _ in range(draw.choice((1, 2))):
        content = zip_that_lies(draw, content)
    return content


def bomb(draw: Random) -> bytes:
    """An archive with a record of 200 MB of zeros: of numbers, or of the pickle."""
    name = draw.choice(("archive/data.pkl", "archive/data/0", "archive/version"))
    return zip_of_zeros(name, b"")


def other_pickle(draw: Random) -> bytes:
    """An archive of torch with an untrusted pickle in it."""
    makers = (pickles.running_code, pickles.running_code_by_a_dotted_name, pickles.filling_memory)
    maker = draw.choice((*makers, pickles.deeply_nested, pickles.quadratic))
    content = maker(draw)
    if draw.random() < 0.4:
        return content
    return zip_of({"archive/data.pkl": content, "archive/version": b"3\n"})


def other_instructions(draw: Random) -> bytes:
    """The pickle of a whole file with its instructions changed."""
    import zipfile

    with zipfile.ZipFile(io.BytesIO(_FILES.samples[draw.randrange(2)])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [name for name in members if name.endswith("data.pkl")]
    members[name] = pickles.without_instruction(draw, members[name])
    return zip_of(members)


def tar(draw: Random) -> bytes:
    """A file of the oldest format, whose members go to the disk: links, devices."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("storages", "tensors", "pickle", "../../evil"):
            member = tarfile.TarInfo(name)
            kinds = (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE)
            member.type = draw.choice(kinds)
            member.linkname = "/etc/passwd"
            content = draw.choice((pickles.running_code(draw), bytes(100)))
            member.size = len(content) if member.type == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def legacy_that_lies(draw: Random) -> bytes:
    """A file of the old format: a row of pickles, one of which says something else."""
    magic = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "type_sizes": {}}, {}, ["0"]]
    magic[draw.randrange(len(magic))] = draw.choice((None, 0, -1, 2**70, "x", {}, [None], [1] * 9))
    return b"".join(pickle.dumps(part, protocol=2) for part in magic) + draw.randbytes(16)


def index_of_shards(draw: Random) -> bytes:
    """A JSON index, as of Hugging Face, of files that are elsewhere, itself, or nowhere."""
    name = draw.choice(("a.pth", "../a.pth", "/etc/passwd", "nowhere.bin", "a\0b", ""))
    return mutated_document(draw, {"metadata": {}, "weight_map": {"main.0.weight": name}})[1]


_FILES = Files(
    (".pth", ".pt"),
    _samples,
    (
        other_values,
        other_values,
        other_values,
        other_values,
        lying_archive,
        bomb,
        other_pickle,
        other_pickle,
        other_instructions,
        other_instructions,
        legacy_that_lies,
        tar,
        index_of_shards,
    ),
    share=0.6,
)


def read(path: Path) -> None:
    from pytorch_impl.native_format import read_native

    check_contents(read_native(path))


READER = Reader(
    "torch",
    _FILES.make,
    read,
    (InputError,),
    needs=("torch",),
    prepare=_FILES.prepared(read),
)
