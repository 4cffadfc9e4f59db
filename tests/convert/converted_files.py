"""Checkpoints to convert, the command that converts them, and what their files hold."""

from pathlib import Path

import pytest

from shared.convert import __main__ as convert
from shared.files.checkpoint import write_checkpoint
from shared.fixtures.network import representative_state
from shared.formats.file_kinds import FILE_KINDS, kind_of
from shared.interface import MissingFrameworkError
from shared.spec import NETWORKS, SYSTEMS

PROGRESS = {"step": 3, "seed": 7, "dtype": "float32"}

# The pixels of mlp28's flat images have an order only where there are channels.
COLOUR = {"mlp28": {"channels": 3}}
SUFFIX = {name: kind.suffixes[0] for name, kind in FILE_KINDS.items()}


def needs(*kinds: str) -> None:
    for kind in kinds:
        try:
            FILE_KINDS[kind].module()
        except MissingFrameworkError as error:
            pytest.skip(str(error))


def checkpoint(folder: Path, system: str = "dcgan64", dtype: str = "float32", **changes) -> Path:
    spec = SYSTEMS[system].replace(**{"width": 2, "latent_dim": 5, **changes})
    arrays = {
        name: array if name.endswith("/step") else array.astype(dtype)
        for name, array in representative_state(spec, 0).items()
    }
    path = folder / f"{system}-{dtype}.safetensors"
    write_checkpoint(path, arrays, spec, progress=PROGRESS)
    return path


def run(*arguments: object) -> int:
    return convert.main([str(argument) for argument in arguments])


def read(path: Path):
    return kind_of(path).read(path)


def weights(path: Path) -> dict[str, bytes]:
    arrays = read(path).arrays
    return {n: a.tobytes() for n, a in arrays.items() if n.split("/")[0] in NETWORKS}
