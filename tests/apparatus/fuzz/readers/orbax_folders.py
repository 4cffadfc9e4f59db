""".orbax: `jax_impl.native_format.read_native` on a folder."""

import functools
import json
import shutil
import tempfile
from pathlib import Path
from random import Random

from shared.files.errors import InputError
from shared.formats.native_contents import Contents, part_shapes
from tests.apparatus.fuzz.json_mutators import mutated_document
from tests.apparatus.fuzz.mutators import mutated
from tests.apparatus.fuzz.places import Files, case_of, path_in
from tests.apparatus.fuzz.reader import Case, Reader
from tests.apparatus.fuzz.readers.torch_files import check_contents, whole_contents


@functools.cache
def _sample() -> Path:
    """Return an intact folder, which lives as long as the process."""
    from jax_impl.native_format import write_native

    whole = whole_contents()
    arrays = {name: whole.arrays[name] for name in part_shapes(whole.spec, ("generator",))}
    folder = _KEPT.name
    write_native(Path(folder, "a.orbax"), Contents(arrays, whole.spec))
    return Path(folder, "a.orbax")


_KEPT = tempfile.TemporaryDirectory(prefix="fuzz-orbax-")
_NO_FOLDER = Files((".orbax",), lambda: [b"no folder"])


def make(draw: Random, folder: Path) -> Case:
    """Copy the intact folder and damage one of its files, or two."""
    if draw.random() < 0.04:
        return _NO_FOLDER.make(draw, folder)
    path = path_in(draw, folder, ".orbax")
    shutil.copytree(_sample(), path)
    labels = []
    for _ in range(draw.choice((0, 1, 1, 1, 1, 2))):
        labels.append(_damage(draw, path))
    return case_of(path, "; ".join(labels) or "intact")


def _damage(draw: Random, path: Path) -> str:
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    if not files:
        return "no file left"
    # The texts say what the rest is.
    texts = [file for file in files if file.name.startswith("_") or file.name.startswith(".z")]
    file = draw.choice(texts if texts and draw.random() < 0.6 else files)
    name = file.relative_to(path)
    action = draw.random()
    if action < 0.1:
        file.unlink()
        return f"{name} removed"
    if action < 0.15:
        file.unlink()
        file.symlink_to(draw.choice((file, path, "/etc/passwd", "/dev/null", path / "nowhere")))
        return f"{name} is a link"
    if action < 0.2:
        file.unlink()
        file.mkdir()
        return f"{name} is a folder"
    content = file.read_bytes()
    if file in texts and draw.random() < 0.7:
        try:
            label, content = mutated_document(draw, json.loads(content))
        except (ValueError, RecursionError):
            label, content = mutated(draw, [content])
    else:
        label, content = mutated(draw, [content])
    file.write_bytes(content)
    return f"{name}: {label}"


def read(path: Path) -> None:
    from jax_impl.native_format import read_native

    check_contents(read_native(path))


READER = Reader(
    "orbax",
    make,
    read,
    (InputError,),
    needs=("jax", "orbax"),
    prepare=lambda: read(_sample()),
)
