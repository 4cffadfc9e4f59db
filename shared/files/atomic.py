"""Files and folders that are either complete under their name or not there at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shared.files.errors import InputError


def write_file_atomically(path: Path, content: bytes) -> None:
    """Write a file so that anybody sees the old content or the new; OSError leaves the old."""
    try:
        with staged(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        error.filename = os.fspath(path)  # the name that the user gave
        raise


def require_place(*paths: Path | None) -> None:
    """Raise InputError, before the work, unless a file can be written at each path."""
    for path in filter(None, paths):
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file in it")
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}; make it or name another")
        if path.is_file() or not path.exists():  # not a device, such as /dev/stdout
            try:
                tempfile.TemporaryFile(dir=path.parent).close()
            except OSError as error:
                raise InputError(f"{path} cannot be written: {error.strerror}") from error


def require_empty_folder(path: Path, option: str) -> None:
    """Raise InputError, which names the option, unless new files can have this folder alone."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{option} {path} is taken; expected an empty folder or a new one")


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a path of the same name to write a file or a folder to; at the end it becomes `path`.

    If the block raises, what was under `path` stays as it was: an old folder, which cannot be
    replaced in one operation, is moved aside, and back should the new one not take its place.
    """
    # The same folder means the same file system, without which os.replace is not atomic.
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        temporary = folder / path.name
        yield temporary
        for written in [temporary, *temporary.rglob("*")]:
            _synchronize(written)
        aside = folder / "replaced"
        if path.exists() and temporary.is_dir():
            os.replace(path, aside)
        try:
            os.replace(temporary, path)
        except BaseException:
            if aside.exists():
                os.replace(aside, path)
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _synchronize(path.parent)


def _synchronize(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut, where the system can."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
