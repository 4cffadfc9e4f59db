"""Documents that people write: TOML or JSON."""

import json
import tomllib
from pathlib import Path
from typing import Any

from shared.files.errors import InputError

MAXIMUM_BYTES = 2**24


def read_document(path: Path) -> Any:
    """Return what a .toml or .json file holds, as plain data.

    Raises InputError, which names the file, for one that cannot be read or is of another kind.
    """
    loads = {".toml": tomllib.loads, ".json": json.loads}.get(path.suffix)
    if loads is None:
        raise InputError(f"{path}: received a file named *{path.suffix}, expected .toml or .json")
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for without end
            raise ValueError("expected a file")
        if (size := path.stat().st_size) > MAXIMUM_BYTES:
            raise ValueError(f"{size:,} bytes, expected at most {MAXIMUM_BYTES:,}")
        return loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    # RecursionError: nested too deep.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}") from error
